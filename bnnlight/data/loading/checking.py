"""Reads a whole data set once and lists what cannot be read, without a network."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from bnnlight.data.loading.files import file_of
from bnnlight.data.loading.sampling import Draw
from bnnlight.imaging.reading import one_line

_BATCH = 16
"""Pictures that a worker hands back at once."""


@dataclass(frozen=True)
class Item:
    """What is kept of an item that was read.

    Attributes:
        position: in its data set.
        file: that it came from, if any.
        digest: of the file's content.
        label: of a picture with a class.
        num_joints: annotated ones of a person.
        error: why it cannot be read, one line; None if it can.
    """

    position: int
    file: str | None = None
    digest: bytes | None = None
    label: int | None = None
    num_joints: int | None = None
    error: str | None = None


@dataclass
class Split:
    """What was found in one of the sets.

    Attributes:
        num_items: pictures, or people in them.
        labels: how many readable pictures each class has.
        num_joints: annotated ones of all people; None where there are no joints.
        unreadable: file or position → why.
        files: that the items come from, if any → hash of the content.
    """

    num_items: int = 0
    labels: Counter[int] = field(default_factory=Counter)
    num_joints: int | None = None
    unreadable: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes | None] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """Count an item."""
        self.num_items += 1
        if item.file:
            self.files[item.file] = item.digest
        if item.error:
            # people in one picture share its file
            self.unreadable.setdefault(item.file or f"item {item.position}", item.error)
        if item.label is not None:
            self.labels[item.label] += 1
        if item.num_joints is not None:
            self.num_joints = (self.num_joints or 0) + item.num_joints


class Examined(Dataset):
    """Reads an item in full, puts it through its transform, and keeps an :class:`Item` of it.

    Random numbers come from a seed of their own for each position, so every check gives the same result.

    Args:
        view: any data set with a length: of (picture, label), or of samples with an entry "annotated".
    """

    def __init__(self, view: Any) -> None:
        self.view = view

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, position: int) -> Item:
        path = file_of(self.view, position)
        digest = file_digest(path) if path else None
        file = str(path) if path else None
        try:
            sample = self.view[Draw(position, position)]
        except MemoryError:
            raise
        except Exception as error:
            # with a number it is the machine or the folder that is at fault, and not this picture
            if isinstance(error, OSError) and error.errno is not None and str(error).startswith("cannot read image"):
                raise
            own = isinstance(error, OSError | ValueError)
            return Item(position, file, digest, error=one_line(error) if own else f"{type(error).__name__}: {error}")
        if isinstance(sample, dict):
            joints = sample.get("annotated")
            return Item(position, file, digest, num_joints=None if joints is None else int(joints.sum()))
        label = sample[1] if isinstance(sample, tuple | list) and len(sample) == 2 else None
        return Item(position, file, digest, label=label if isinstance(label, int) else None)


def file_digest(path: Path) -> bytes | None:
    """Hash of a file's content; None where it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()


def examine(view: Any, num_workers: int, advance: Callable[[int], None]) -> Split:
    """Read a whole data set.

    Args:
        view: any data set with a length.
        num_workers: processes that read; 0 reads in this one.
        advance: called with the number of items read since the last call.
    """
    split = Split()
    for batch in DataLoader(Examined(view), batch_size=_BATCH, num_workers=num_workers, collate_fn=list):
        for item in batch:
            split.add(item)
        advance(len(batch))
    return split


def shared_files(one: Split, other: Split) -> list[tuple[str, str]]:
    """Files of two sets with the same content, byte for byte: one pair for each file of the second."""
    # of files that are the same in one set, the first by name stands for all
    first = {digest: file for file, digest in sorted(one.files.items(), reverse=True) if digest}
    return [(first[digest], file) for file, digest in sorted(other.files.items()) if digest in first]
