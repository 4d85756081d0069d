"""Methods (× optimizers) × seeds under one protocol: the check of a claim as a command, `bnnlight matrix`.

| file | what is in it |
|---|---|
| `plan.py` | what is compared on what, read from its YAML |
| `rows.py` | what a row is: a method, what it is trained with, the search of its value |
| `axis.py` | optimizers as an axis of a plan: each pair of a method and an optimizer is a row |
| `reading.py` | parts of that YAML, each checked as it is read |
| `runs.py` | the runs of a plan: folder, command line, and what each was asked for |
| `ledger.py` | what the runs gave, a line each, in a file beside the report |
| `standing.py` | what there is of each row's runs |
| `choice.py` | a row's learning rate, from its search runs |
| `child.py` | one run under way, a process of its own |
| `work.py` | all runs that are missing, some at a time |
| `screen.py` | how far they are |
| `statistics.py` | intervals, paired differences, Holm's correction |
| `pairs.py` | which rows are compared, and their differences |
| `reach.py` | processor time until a figure on held-out data is reached |
| `evidence.py` | what the callbacks saw in a run: flip rates, effective ranks, cut inputs |
| `report.py`, `page.py`, `figure.py` | what came out: numbers, page, picture |
| `page_pairs.py`, `page_reach.py` | parts of the page |
| `curve.py` | methods that differ in one number, such as the rank, drawn against it |
"""
