"""The verbs of the command line, one file each; `bnnlight.cli` is their table.

A verb is a function that takes the arguments behind its name; ``fit.py`` has ``validate`` and ``test`` too. What
verbs do is in other rooms, most of it in `bnnlight.experiment`. ``torchrun.py`` is not a verb: job scripts call it as
``python -m bnnlight.commands.torchrun``.
"""
