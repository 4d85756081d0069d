"""Pictures that cannot be read: left out of their batches, counted, and named once.

A loader's workers cannot count for the main process. So what they collate is a :class:`Checked`, the batch with the
reasons why pictures are missing from it, and :class:`ImageLoader` takes the two apart where the batch is handed out.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset

from bnnlight.data.loading.sampling import items_at, no_items

OnBadImage = Literal["stop", "skip"]
NUM_STAND_INS = 16
"""Pictures that are tried in place of those of a short batch, none of which can be read."""


@dataclass(frozen=True)
class Unreadable:
    """Takes the place of a sample.

    Attributes:
        reason: one line that names the file.
    """

    reason: str


class Checked(NamedTuple):
    """A batch, and why pictures are missing from it: one line for each."""

    batch: Any
    reasons: list[str]


class Readable(Dataset):
    """A data set that gives :class:`Unreadable` for a picture that cannot be read.

    That is any ``OSError`` without an ``errno``, see :func:`bnnlight.imaging.reading.unreadable`. With one, it is not
    the picture that is at fault, and the error remains an error.

    Args:
        items: any data set with a length.

    Attributes:
        named: reasons that the user was already told. The loaders of a data module may share it.
    """

    def __init__(self, items: Any, named: set[str] | None = None) -> None:
        self.items = items
        self.named: set[str] = set() if named is None else named

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        try:
            return self.items[position]
        except OSError as error:
            if error.errno is not None:
                raise
            return Unreadable(str(error))

    __getitems__ = items_at


class LeaveOut:
    """Collates what could be read of a batch to a :class:`Checked`.

    A short batch to measure, such as the last one of a pass, may turn out empty: its form is then that of
    other pictures. Without any to learn it from, and in training, a batch without pictures is an error.

    Args:
        collate: makes a batch of samples, of at least one.
        batch_size: of a full batch.
        stand_ins: the data set where a short batch may be empty, else None.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], batch_size: int, stand_ins: Readable | None = None) -> None:
        self.collate, self.batch_size, self.stand_ins = collate, batch_size, stand_ins

    def __call__(self, samples: list[Any]) -> Checked:
        """Collate.

        Raises:
            OSError: None of the pictures can be read.
        """
        reasons = [sample.reason for sample in samples if isinstance(sample, Unreadable)]
        readable = [sample for sample in samples if not isinstance(sample, Unreadable)]
        if readable:
            return Checked(self.collate(readable), reasons)
        if len(samples) < self.batch_size and self.stand_ins is not None:
            for position in np.unique(np.linspace(0, len(self.stand_ins) - 1, NUM_STAND_INS).round().astype(int)):
                sample = self.stand_ins[int(position)]
                if not isinstance(sample, Unreadable):
                    return Checked(no_items([sample]), reasons)
        raise OSError(
            f"none of the {len(samples)} images of a batch can be read, the first: {reasons[0]}; "
            "is the data folder still there?"
        )


class ImageLoader(DataLoader):
    """A loader that hands out batches without the pictures that cannot be read, where it is over :class:`Readable`.

    Each file is named on stderr when it is missing for the first time. Over any other data set this is torch's loader.

    Attributes:
        skipped: how many pictures are missing from each batch handed out in this pass, the oldest first; whoever counts
            them removes them. None before the first pass, and where nothing is left out.
    """

    skipped: deque[int] | None = None

    @property
    def named(self) -> set[str] | None:
        """Reasons that were already reported; None where nothing is left out."""
        return self.dataset.named if isinstance(self.dataset, Readable) else None

    def __iter__(self) -> Iterator[Any]:
        if self.named is None:
            return super().__iter__()
        self.skipped = deque()
        return map(self._hand_out, super().__iter__())

    def _hand_out(self, checked: Any) -> Any:
        # where memory is pinned, the pair comes as it went, yet as a list from some versions of torch
        batch, reasons = checked
        self.skipped.append(len(reasons))
        for reason in reasons:
            if reason not in self.named:
                self.named.add(reason)
                print(f"left out: {reason}", file=sys.stderr, flush=True)
        return batch
