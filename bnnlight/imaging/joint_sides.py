"""Tells left and right joints by their names, in the ways in which they are written."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
# "forelegL1" is foreleg, L, 1 and "LShoulder" is L, Shoulder; what is not a letter and no digit parts words
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
_JOINED = re.compile(r"^(left|right|l|r)(?=[a-z]{2})|(left|right)$", re.IGNORECASE)


def flip_pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of joints whose names are the same but for left and right.

    Taken for a side are the words left and right, and the letters l and r where they stand as a word: "left_eye",
    "Left Eye", "LeftEye", "l_eye", "eye_l", "L1", "forelegL1". Where a word begins with the side, as "lefteye" or
    "lwrist", it counts only if there is the other one.

    Args:
        names: of all joints.

    Returns:
        ``((left, right), …)``, indices, by the first of the two.
    """
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        for side, rest in _readings(name):
            places[side, rest].append(index)
    pairs, taken = [], set()
    # words first, what is joined to a word last: the readings of a name come in this order
    for index, name in enumerate(names):
        for side, rest in _readings(name):
            others = places.get(("right" if side == "left" else "left", rest), [])
            if index not in taken and len(others) == len(places[side, rest]) == 1 and others[0] not in taken:
                pair = (index, others[0]) if side == "left" else (others[0], index)
                pairs.append(pair)
                taken.update(pair)
    return tuple(sorted(pairs, key=min))


def without_side(name: str) -> str:
    """A joint's name without its side, in words joined by "_"; "Left_Eye" is "eye". For one of a pair."""
    return next((_rest(reading) for _, reading in _readings(name)), "") or name


def side_and_rest(name: str) -> tuple[str, str]:
    """A joint's side ("left", "right" or "" where none is clear) and its name without it, in small letters."""
    side, reading = next(_readings(name, joined=False), ("", ""))
    return (side, _rest(reading)) if side else ("", "_".join(_words(name)))


def _rest(reading: str) -> str:
    return reading.replace("*", "").strip("_").replace("__", "_")


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _readings(name: str, joined: bool = True) -> Iterator[tuple[str, str]]:
    """Ways to read a name: its side, and the rest with a * where the side stood."""
    words = _words(name)
    for place, word in enumerate(words):
        if word in _SIDES:
            yield _SIDES[word], "_".join([*words[:place], "*", *words[place + 1 :]])
    for place, word in enumerate(words if joined else ()):
        if word not in _SIDES and (match := _JOINED.search(word)):
            rest = _JOINED.sub("", word, count=1)
            yield _SIDES[match.group().lower()], "_".join([*words[:place], f"*{rest}", *words[place + 1 :]])
