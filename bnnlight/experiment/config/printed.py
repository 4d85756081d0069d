"""Has ``--print_config`` print what is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from bnnlight.experiment.config.swapped_classes import forget_replaced

_OPTION = "--print_config"


def print_config_as_trained(parser: ArgumentParser, args: Sequence[str]) -> None:
    """Where ``--print_config`` is asked for, prints the config and ends the process; else it does nothing.

    jsonargparse prints before :func:`~bnnlight.experiment.config.swapped_classes.forget_replaced` can give an optimizer
    its own defaults. So the config is read without the option first, and what comes of it is read again and printed. A
    config that is not whole is left to jsonargparse, which prints such ones too.

    Args:
        parser: of the command line.
        args: the command line behind the verb.
    """
    flags = [word for word in args if word.partition("=")[0] == _OPTION]
    if not flags:
        return
    rest = [word for word in args if word not in flags]
    try:
        config = parser.parse_args(rest)
        forget_replaced(config, rest)
    except ArgumentError:
        return
    config.config = None
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "config.yaml"
        whole.write_text(parser.dump(config, skip_none=False), encoding="utf-8")
        parser.parse_args([f"--config={whole}", flags[-1]])
