"""What a verb with a config can answer before torch and Lightning are imported, which takes seconds.

``answer.py`` is asked first: it prints ``--help`` and raises what is surely wrong with a command line. All else goes on
as if it had not been asked. ``help_page.py`` keeps the page that jsonargparse prints, and with it the names and types
of all options; ``signatures.py`` reads the options of this package's classes from their source; ``sources.py`` puts
configs and options in a row; ``check.py`` goes through them. ``completing.py`` gives the shell what may be typed.
"""
