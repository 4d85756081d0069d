"""Reads files that anybody may have made: strict JSON, and values shown in one line."""

from __future__ import annotations

import json
import re
import reprlib
from typing import Any

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120
_short.maxlong = 30

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def shown(value: Any) -> str:
    """A value for a message: one line, short however large or deep the value is."""
    try:
        return _short.repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a value of type {type(value).__name__}"


def is_line(text: Any) -> bool:
    """Whether it is a text that can be printed in one line: no control character, no half of a surrogate pair."""
    return isinstance(text, str) and not _UNPRINTABLE.search(text)


def parse_json(text: str, what: str) -> Any:
    """Plain JSON: no NaN or infinity, no key twice in one object, no number of hundreds of digits.

    Args:
        text: to be read.
        what: it is, for the message.

    Raises:
        ValueError: it is not plain JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse, parse_int=_integer)
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys: set[str] = set()
        twice = next(key for key, _ in pairs if key in keys or keys.add(key))
        raise ValueError(f"the key {shown(twice)} appears twice")
    return content


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _integer(text: str) -> int:
    # reading a number of a million digits takes older Pythons minutes
    if len(text) > 20:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)
