"""Seals: the checksum of a file, kept inside that file."""

from __future__ import annotations

import hashlib
import re

EMPTY = "0" * 64
"""Stands where the checksum will be while the file is made."""
PREFIX = "sha256:"

_SEAL = re.compile(PREFIX + "[0-9a-f]{64}")


class Damaged(ValueError):
    """A file that is not, to the last bit, what was written."""


def sealed(content: bytes, also: bytes = b"") -> bytes:
    """The content with its SHA-256 in place of ``sha256:000…0``, which must be in it once.

    Args:
        content: of the file, with :data:`PREFIX` and :data:`EMPTY` in it.
        also: of a second file that belongs to it.

    Raises:
        ValueError: the place for the checksum is missing, or is not the only one.
    """
    place = (PREFIX + EMPTY).encode()
    if content.count(place) != 1:
        raise ValueError(f"the content has {content.count(place)} places for a checksum, not one")
    before, _, after = content.partition(place)
    return b"".join((before, (PREFIX + _digest(before, after, also)).encode(), after))


def check_seal(content: bytes, seal: str, also: bytes = b"") -> None:
    """Makes sure that no bit has changed since the content was sealed.

    Args:
        content: of the file.
        seal: ``sha256:…`` as it was read from the content.
        also: of the second file, if there is one.

    Raises:
        Damaged: a bit has changed, or the seal is none.
    """
    if not isinstance(seal, str) or not _SEAL.fullmatch(seal) or content.count(seal.encode()) != 1:
        raise Damaged("it has no valid checksum: the file is damaged or was changed; export it again, or copy it again")
    at = content.index(seal.encode())
    # views: a second copy of a large file would be in memory else
    before, after = memoryview(content)[:at], memoryview(content)[at + len(seal) :]
    if seal != PREFIX + _digest(before, after, also):
        raise Damaged("its checksum is wrong: the file is damaged or was changed; export it again, or copy it again")


def _digest(before: bytes | memoryview, after: bytes | memoryview, also: bytes) -> str:
    """Of the content between whose parts the empty checksum stands, and of the second file."""
    place = (PREFIX + EMPTY).encode()
    digest = hashlib.sha256((len(before) + len(place) + len(after)).to_bytes(8, "little"))
    for part in (before, place, after, also):
        digest.update(part)
    return digest.hexdigest()
