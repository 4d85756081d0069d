"""A trained network to a program; `freeze.py` does it, in three stages.

`trace.py` finds the network's layers and functions in the order in which they run, and `arguments.py` puts their
arguments in one form. `translate.py` makes steps of them, and names what cannot be shipped; which steps, `layers.py`,
`functions.py`, `pools.py`, `channels.py` and `constant_arithmetic.py` know, in the terms of `translation.py`. `fold.py`
takes batch norm, α and PReLU in front of a sign into its threshold; `thresholds.py` finds where the sign changes, and
`arithmetic.py` rounds as torch does.
"""
