"""The argument parser of verbs that have no config."""

from __future__ import annotations

import argparse
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

_ASKED = "\0"
"""A word that nobody can type."""


class _Found(Exception):
    """Carries a verb's parser to whoever asked for it."""


def parser_of(verb: Callable[[list[str]], None]) -> Parser:
    """The parser of a verb without a config, which is then not run.

    Args:
        verb: the function of the verb.
    """
    try:
        verb([_ASKED])
    except _Found as found:
        return found.args[0]
    raise TypeError(f"{verb.__name__} does not begin with its Parser")


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as all other errors are reported, instead of leaving the process.

    Options cannot be abbreviated, as in verbs that have a config. A word that is no option is answered with the nearest
    option of this verb.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **options)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse does it, but for the message about a word that no option takes."""
        words = sys.argv[1:] if args is None else list(args)
        if _ASKED in words:
            raise _Found(self)
        try:
            options, rest = self.parse_known_args(words, namespace)
        except ArgumentError as error:
            if advice := self._for_lacking(str(error), words):
                self.error(advice)
            raise
        if rest:
            self.error(self._unknown(rest[0]))
        return options

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(None, message)

    def _for_lacking(self, message: str, words: list[str]) -> str | None:
        """What to write where a word stands by itself, and a required option that may be meant by it is not there."""
        lacking = re.findall(r"--[\w-]+", message) if "arguments are required" in message else []
        if not lacking or not words:
            return None
        try:
            rest = self.parse_known_args([*words, *(part for option in lacking for part in (option, "x"))])[1]
        except ArgumentError:  # an option does not take any word
            rest = words[:1]
        stray = next((word for word in rest if not word.startswith("-")), None)
        return f"{stray!r} does not belong to any option: write {lacking[0]} {stray}" if stray else None

    def _unknown(self, word: str) -> str:
        names = re.findall(r"--([\w-]+)", self.format_usage())
        if not word.startswith("-"):
            return f"{word!r} does not belong to any option: see {self.prog} --help"
        option = word.split("=")[0]
        near = get_close_matches(option.lstrip("-").lower(), names, 1)
        return f"no option {option!r}: " + (f"did you mean --{near[0]}?" if near else f"see {self.prog} --help")
