"""The plan of a matrix, what is compared on what: a YAML, read and checked.

`plan.py` reads it: a ``Plan`` with its rows, seeds, search and metric. `rows.py` says what a row is: a method, what it
is trained with, the search of its value. `axis.py` makes optimizers an axis: each pair of a method and an optimizer is
a row. `reading.py` checks each part of the YAML as it is read; `units.py` says how the metric's figures are shown.
"""
