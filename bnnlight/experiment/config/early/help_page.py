"""The help of verbs with a config, as jsonargparse prints it, kept in a file: to make it anew takes seconds."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("help_page.json")
"""Written by ``python docs/write_help.py``."""
MAKERS = ("jsonargparse", "lightning")
"""Packages that the page comes from: with other versions of them it may be another one."""
VERBS = ("fit", "validate", "test", "check", "summary")

_TOKEN = re.compile(r"\[.*?\]+(?=\s|$)|\S+")
_OPTION = re.compile(r"^  (-.*?)(?:  |$)")
_TYPE = re.compile(r"\(type: (.*?)(?:, default: .*)?\)$")
_HELP_AT = 24
"""Column at which argparse begins what an option is for."""


@dataclass(frozen=True)
class Page:
    """The help of one verb, its lines as long as they are.

    Attributes:
        verb: its name.
        usage: an option each.
        description: in one line.
        lines: what stands below the description.
    """

    verb: str
    usage: Sequence[str]
    description: str
    lines: Sequence[str]

    @classmethod
    def read(cls, verb: str, text: str) -> Page:
        """From what the verb prints on a terminal that is wider than any line.

        Raises:
            ValueError: it is no such page.
        """
        usage, description, *lines = text.rstrip("\n").split("\n\n", 2)
        start = f"usage: bnnlight {verb} "
        if not usage.startswith(start) or "\n" in usage + description or len(lines) != 1:
            raise ValueError(f"this is not the help of bnnlight {verb} in whole lines")
        return cls(verb, _TOKEN.findall(usage.removeprefix(start)), description, lines[0].split("\n"))

    def wrapped(self, width: int) -> str:
        """The page as argparse lays it out for a terminal of so many columns, 48 at least."""
        width = max(width, 48) - 2
        description = textwrap.wrap(self.description, width)
        body = [line for whole in self.lines for line in _wrapped_line(whole, width)]
        return "\n".join([*self._usage(width), "", *description, "", *body, ""])

    def _usage(self, width: int) -> Iterator[str]:
        line = f"usage: bnnlight {self.verb}"
        indent = " " * (len(line) + 1)
        for token in self.usage:
            if len(line) + 1 + len(token) > width and line.strip():
                yield line
                line = f"{indent}{token}"
            else:
                line = f"{line} {token}"
        yield line

    def flags(self) -> set[str]:
        """Options that take no value, without dashes."""
        options = [option[1].split(", ") for line in self.lines if (option := _OPTION.match(line))]
        return {word.lstrip("-") for words in options for word in words if not any(" " in part for part in words)}

    def bare(self) -> set[str]:
        """Options that may stand without their value, without dashes: their names stand before it in brackets."""
        options = [option[1] for line in self.lines if (option := _OPTION.match(line))]
        return {option.split(" ")[0].lstrip("-") for option in options if option.partition(" ")[2].startswith("[")}

    def types(self) -> dict[str, str]:
        """Option, without dashes → its type as the page names it, "" where it names none."""
        found: dict[str, str] = {}
        names: list[str] = []
        for line in self.lines:
            if option := _OPTION.match(line):
                words = [part.split(" ")[0] for part in option[1].split(", ")]
                names = [word.lstrip("-") for word in words if word.startswith("-")]
                found |= dict.fromkeys(names, "")
            if names and (kind := _TYPE.search(line)):
                found |= dict.fromkeys(names, kind[1])
        return found


def _wrapped_line(line: str, width: int) -> list[str]:
    begin, text = line[:_HELP_AT], line[_HELP_AT:]
    is_help = line.startswith("  ") and begin[-2:] == "  " and len(begin) == _HELP_AT and text[:1].strip()
    if not is_help:  # a heading or an option, which argparse does not wrap
        return [line]
    first, *others = textwrap.wrap(text, max(width - _HELP_AT, 11))
    return [begin + first, *(" " * _HELP_AT + other for other in others)]


def pack(pages: Sequence[Page]) -> dict[str, Any]:
    """The pages as plain data: the first one, and what each of the others has besides, in one place of each part.

    Raises:
        ValueError: they are not so alike.
    """
    first = pages[0]
    record: dict[str, Any] = {"made_with": {name: version(name) for name in MAKERS}, "verbs": {}}
    for page in pages:
        own = {part: _own(getattr(first, part), getattr(page, part)) for part in ("usage", "lines")}
        record["verbs"][page.verb] = {"description": page.description} | own
    return record | {"usage": list(first.usage), "lines": list(first.lines)}


def unpack(record: Mapping[str, Any], verb: str) -> Page:
    """One of the pages that :func:`pack` has packed."""
    own = record["verbs"][verb]
    parts = {}
    for part in ("usage", "lines"):
        at, what = own[part]["at"], own[part]["what"]
        parts[part] = [*record[part][:at], *what, *record[part][at:]]
    return Page(verb, parts["usage"], own["description"], parts["lines"])


def _own(first: Sequence[str], other: Sequence[str]) -> dict[str, Any]:
    at = next((i for i, (a, b) in enumerate(zip(first, other, strict=False)) if a != b), len(first))
    more = len(other) - len(first)
    if more < 0 or [*other[:at], *other[at + more :]] != [*first]:
        raise ValueError("two pages differ in more than one place")
    return {"at": at, "what": list(other[at : at + more])}


@cache
def kept_page(verb: str) -> Page | None:
    """The page of a verb; None where it was made with other versions of Lightning and jsonargparse than are here."""
    try:
        here = {name: version(name) for name in MAKERS}
    except PackageNotFoundError:
        return None
    return any_page(verb) if _record().get("made_with") == here else None


def any_page(verb: str) -> Page | None:
    """The page of a verb, whatever it was made with; None where there is none."""
    record = _record()
    return unpack(record, verb) if record else None


def _record() -> dict[str, Any]:
    try:
        return json.loads(FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def terminal_width() -> int:
    """Columns of the terminal, or those that the variable COLUMNS names."""
    return shutil.get_terminal_size().columns
