"""The verbs of the command line, one file a group; `bnnlight.cli` is their table."""
