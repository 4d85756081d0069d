"""Checks of a config before any object is made of it; an error is one line that names the key.

``files.py`` looks at the files before they are parsed. Once they are parsed, ``swapped_classes.py`` drops the options
of an optimizer or a schedule that another one replaced, ``null_values.py`` takes ``None`` for ``null``, and
``option_ranges.py`` checks numbers. ``changes.py`` compares the config of a run that goes on with the saved one.
``own_code.py`` finds classes that lie beside a config. ``early/`` tells before torch is imported what can be told then.
"""
