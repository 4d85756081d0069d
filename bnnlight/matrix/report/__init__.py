"""The report of a matrix: numbers with intervals, a page, pictures.

`record.py` has it as plain numbers, and writes all files of the report. Its numbers come from `statistics.py`:
intervals, paired differences, Holm's correction; `pairs.py`: which rows are compared; and `reach.py`: processor time
until a figure on held-out data is reached. `page.py` is the page, with parts in `page_pairs.py` and `page_reach.py`;
`figure.py` is the picture, and `curve.py` the one of methods that differ in one number, such as the rank.
"""
