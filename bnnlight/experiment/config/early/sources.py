"""Configs and options of a command line in their order, as paths of names with their values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnnlight.console.shipped_configs import is_file
from bnnlight.experiment.config.files import read_config

CONFIG = ("config",)

Way = tuple[str, ...]
"""Names on the way to an option, such as ``("model", "optimizer", "lr")``."""


def sources(args: Sequence[str], flags: Collection[str]) -> Iterator[tuple[Way, Any, str | None]]:
    """What a command line says, one thing after the other; behind ``--config`` comes what stands in the file.

    Args:
        args: what stands behind the verb.
        flags: options that take no value, without dashes.

    Yields:
        The way to an option; its value, text or what a config's YAML holds, None where it has none; and the word as it
        was typed, None where it stands in a config. Of a word that belongs to no option the way is empty.
    """
    words = list(args)
    while words:
        word = words.pop(0)
        option, is_joined, value = word.partition("=")
        if word.startswith("-c"):  # its value may follow at once
            option, is_joined, value = "--config", word[2:], word[2:].removeprefix("=")
        if not option.startswith("--"):
            yield (), word, word
            continue
        name = option.removeprefix("--")
        if not is_joined:
            takes_next = name not in flags and words and not words[0].startswith("--")
            value = words.pop(0) if takes_next else None
        way = tuple(name.split("."))
        yield way, value, word
        if way == CONFIG and value and is_file(value):
            yield from ((inner, part, None) for inner, part in entries(read_config(Path(value))))


def entries(content: Mapping[str, Any]) -> Iterator[tuple[Way, Any]]:
    """The entries of a mapping; a name with dots is a way through several."""
    for name, inner in content.items():
        yield tuple(str(name).split(".")), inner
