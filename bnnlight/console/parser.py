"""The argument parser of verbs that have no config."""

from __future__ import annotations

import argparse
from argparse import ArgumentError
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as all other errors are reported, instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(None, message)
