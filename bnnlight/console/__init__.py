"""Errors in one line, tables and parsers of the command line. Imports nothing large: no error has to wait for torch.

``errors.py`` makes one line of any error, with its exit code. It asks ``config_errors.py`` for what jsonargparse says
of a wrong option or config, of which ``unions.py`` makes one reason where there are several; ``missing.py`` for
packages that are not installed; ``machine_errors.py`` for memory, disk and other limits; and ``lost_connection.py``
for torch's words when another process of a run is gone. ``known_names.py`` finds the nearest right name.

``parser.py`` reads the arguments of verbs that have no config, and ``completion.py`` completes command lines in the
shell; ``large.py`` is around imports of what is large; ``shipped_configs.py`` finds the configs that come with the
package, by name; ``tables.py`` prints tables.
"""
