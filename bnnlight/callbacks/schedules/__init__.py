"""What is binary, what is stepped and what decays, and from when: callbacks that a config names.

``stages.py``: real, then with binary activations, then binary. ``layer_by_layer.py``: one layer after the other.
``freeze_signs.py``: no sign changes any more. ``weight_decay.py``: of latents, and until when. The classes are named by
`bnnlight.callbacks`.
"""
