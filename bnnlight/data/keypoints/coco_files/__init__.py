"""How files in COCO's keypoint form are read.

================ ==============================================================================
``content.py``   a JSON file loaded; its pictures, categories and annotations by their ids
``reading.py``   people of it, as arrays; who is left out
``boxes.py``     the square that is cut out, from an annotated box or from the joints
``skeleton.py``  names, sides, limbs and sigmas of a category's joints
``truth.py``     all annotations again, as a dictionary in COCO's form, for OKS
================ ==============================================================================
"""
