"""Makes one reason of several in jsonargparse's messages, where an option takes values of different types."""

from __future__ import annotations

import re

from bnnlight.console.known_names import find_object

_CHOICES = re.compile(
    r"Subtypes: \[((?:typing\.Literal\[[^]]*\]|<class 'NoneType'>|, )+)\]\n(\s*)Errors:\n(?:\s*- Expected a .*\n)+"
)
"""One of several lists of words, each of which is named by itself."""
_WORDS_OR_CLASSES = re.compile(
    r"Subtypes: \[(typing\.Literal\[[^]]*)\]((?:, <class '[\w.]+'>)+)\]\n(\s*)Errors:\n(?:\s*- Expected a .*\n)+"
)
"""One of a list of words, or an object."""
_NUMBERS = re.compile(r"(\s*- Expected a )<class 'int'>(.*)\n\s*- Expected a <class 'float'>")
_CLASSES = re.compile(r"Subtypes: \[((?:<class '[\w.]+'>(?:, )?)+)\]\n(\s*)Errors:\n((?:\s*- Expected .*\n)+)")
_NAMED = "Expected a dot import path string: "


def as_one(text: str) -> str:
    """The message with one reason in place of those of all types that one value was tried as.

    A name that is not a class's is followed by ``; of`` and the classes that the option takes.
    """
    text = _CHOICES.sub(_joined, text)
    text = _WORDS_OR_CLASSES.sub(_with_classes, text)
    text = _CLASSES.sub(_with_kinds, text)
    return _NUMBERS.sub(r"\1number\2", text)


def _joined(match: re.Match[str]) -> str:
    """One list of the words, each of them once, in the place of several."""
    words = [word.strip("' ") for part in re.findall(r"Literal\[(.*?)\]", match[1]) for word in part.split(",")]
    return f"Errors:\n{match[2]}  - Expected a typing.Literal[{', '.join(map(repr, dict.fromkeys(words)))}]\n"


def _with_classes(match: re.Match[str]) -> str:
    kinds = [public_path(kind) for kind in re.findall(r"'([^']+)'", match[2]) if kind != "NoneType"]
    return f"Errors:\n{match[3]}  - Expected a {', '.join([match[1], *map(repr, kinds)])}]\n"


def _with_kinds(match: re.Match[str]) -> str:
    kinds = [kind for kind in re.findall(r"'([^']+)'", match[1]) if "." in kind]
    of = f"; of {'|'.join(kinds)}" if kinds else ""
    lines = [line + of if _NAMED in line else line for line in match[3].splitlines()]
    return f"Subtypes: [{match[1]}]\n{match[2]}Errors:\n" + "".join(f"{line}\n" for line in lines)


def public_path(path: str) -> str:
    """The shortest path by which a class can be imported, as ``bnnlight.nn.Tanh`` of ``bnnlight.nn.binarize.Tanh``."""
    *folders, name = path.split(".")
    for length in range(1, len(folders)):
        shorter = ".".join([*folders[:length], name])
        found = find_object(shorter)
        if found is not None and found is find_object(path):
            return shorter
    return path
