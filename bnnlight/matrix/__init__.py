"""Methods × seeds under one protocol: the check of a claim as a command, `bnnlight matrix`.

| file | what is in it |
|---|---|
| `plan.py` | what is compared on what, read from its YAML |
| `runs.py` | the runs of a plan: folder, command line, and what each was asked for |
| `ledger.py` | what the runs gave, a line each, in a file beside the report |
| `choice.py` | a method's learning rate, from its search runs |
| `child.py` | one run under way, a process of its own |
| `work.py` | all runs that are missing, some at a time |
| `screen.py` | how far they are |
| `statistics.py` | intervals, paired differences, Holm's correction |
| `evidence.py` | what the callbacks saw in a run: flip rates, effective ranks, cut inputs |
| `report.py`, `page.py`, `figure.py` | what came out: numbers, page, picture |
| `curve.py` | methods that differ in one number, such as the rank, drawn against it |
"""
