"""What all verbs say and read on a terminal, without the rest of the package: no error has to wait for torch.

``errors.py`` makes one line of any error, with its exit code. It asks ``config_errors.py`` for what jsonargparse says
of a wrong option or config, with the nearest right name; ``machine_errors.py`` for memory, disk and other limits; and
``lost_connection.py`` for torch's words when another process of a run is gone. ``parser.py`` reads the arguments of
verbs that have no config; ``tables.py`` prints tables.
"""
