"""Turns any error into one line, what, where and what to do, and an exit code."""

from __future__ import annotations

import re
from argparse import ArgumentError  # jsonargparse raises this one too
from collections.abc import Iterable

from bnnlight.console.config_errors import explain_config
from bnnlight.console.lost_connection import lost_connection
from bnnlight.console.machine_errors import explain_machine
from bnnlight.console.missing import explain_missing

DIVERGED = 3
"""Exit code of a training that would come to the same end with the same options: its numbers are not finite."""


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and message of an error.

    Args:
        error: as it reached the command line.

    Returns:
        2 and a line for what is wrong on the command line or in a config, 3 and a line for a training whose numbers are
        no longer finite, 1 and a line for all else.
    """
    text = str(error)
    if "Problems parsing config" in text:
        return 2, "the config is not valid YAML: " + _join(text.removeprefix("Problems parsing config:").splitlines())
    if isinstance(error, ArgumentError) or "Does not validate against" in text:
        return 2, explain_config(text)
    if missing := explain_missing(error):
        return 2, missing
    if lost := lost_connection(error):
        return 1, lost
    # an error in a data loader's worker arrives with the worker's traceback; its last line is the message
    lines = [line for line in text.splitlines() if line.strip()]
    if text.startswith("Caught ") and lines:
        text = re.sub(r"^[\w.]*(Error|Exception): ", "", lines[-1])
    elif lines:
        text = _join(lines[:1] if len(lines) > 3 else lines)
    machine = explain_machine(error, text)
    if machine:
        return 1, machine
    # by its name: not every verb waits for Lightning
    of_lightning = type(error).__name__ == "MisconfigurationException"
    wrong = of_lightning or isinstance(error, ValueError | FileNotFoundError | NotADirectoryError)
    code = DIVERGED if isinstance(error, FloatingPointError) else 2 if wrong else 1
    is_clear = (wrong or isinstance(error, OSError | FloatingPointError)) and text
    return code, text if is_clear else f"{type(error).__name__}: {text} (run again with --debug to see where)"


def _join(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
