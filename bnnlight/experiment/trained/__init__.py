"""Uses of a trained network: predictions, and export.

``network.py`` loads it, with what its run knows of it; ``loaded.py`` is `bnnlight.load`, the same for use from Python.
``classes.py`` names the classes of pictures with it, and ``poses.py`` finds joints; ``predictor.py`` chooses between
them. ``shipping.py`` tells an export what the shipped model has to say of itself, and compares the two on test
pictures.
"""
