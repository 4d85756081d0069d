"""The runs of a plan: started, resumed and recorded.

`run.py` says where each run lies, how it is started and what it was asked for. `work.py` makes the runs that are
missing, some at a time: `child.py` is one of them, a process of its own, `machine.py` the cores and GPUs that they
share, `screen.py` how far they are. `ledger.py` keeps what the runs gave, a line each; `standing.py` tells what there
is of each row's runs, and `choice.py` a row's learning rate, from its search runs. `evidence.py` reads what the
callbacks saw in a run; `files.py` writes files that are there whole or not at all.
"""
