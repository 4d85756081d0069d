"""The argument parser of verbs that have no config."""

from __future__ import annotations

import argparse
from argparse import ArgumentError
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as all other errors are reported, instead of leaving the process.

    Options cannot be abbreviated, as in verbs that have a config.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(None, message)
