"""How people are drawn.

================ ==============================================================================
``dice.py``      all random numbers of one picture, from its seed and index
``body.py``      bones, their places in space and on the picture, the head box
``poses.py``     joint angles of arms, legs and trunk; from where the figure is seen
``look.py``      skin, hair and clothes
``brush.py``     shaded shapes with smooth edges
``head.py``      face and hair
``painting.py``  a whole figure, its parts in the order of their depth
``scenes.py``    background, things in front of the figure, light and noise
================ ==============================================================================
"""
