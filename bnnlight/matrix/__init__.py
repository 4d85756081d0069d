"""`bnnlight matrix`: methods (× optimizers) × seeds, trained under one protocol and compared.

``plan`` says what is compared on what, ``runs`` makes the runs and tells what there is of them, ``report`` says what
came out. ``runs`` imports ``plan``, and ``report`` both. The docstring of each says what its files do.
"""
