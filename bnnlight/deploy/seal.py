"""A checksum inside the file that it guards."""

from __future__ import annotations

import hashlib

EMPTY = "0" * 64
"""Stands where the checksum will be while the file is made."""
PREFIX = "sha256:"


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
    return content.replace(place, (PREFIX + _digest(content, also)).encode())


def check_seal(content: bytes, seal: str, also: bytes = b"") -> None:
    """Makes sure that no bit has changed since the content was sealed.

    Args:
        content: of the file.
        seal: ``sha256:…`` as it was read from the content.
        also: of the second file, if there is one.

    Raises:
        Damaged: a bit has changed, or the seal is none.
    """
    place = seal.encode()
    if not seal.startswith(PREFIX) or len(seal) != len(PREFIX + EMPTY) or content.count(place) != 1:
        raise Damaged("it has no valid checksum")
    if seal != PREFIX + _digest(content.replace(place, (PREFIX + EMPTY).encode()), also):
        raise Damaged("its checksum is wrong: the file is damaged or was changed; export it again, or copy it again")


def _digest(content: bytes, also: bytes) -> str:
    digest = hashlib.sha256(len(content).to_bytes(8, "little"))
    digest.update(content)
    digest.update(also)
    return digest.hexdigest()
