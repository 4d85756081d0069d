"""`ItemView`: chosen items of a data set, each seen through a transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset

from bnnlight.data.loading.sampling import items_at, seeded_by


class ItemView(Dataset):
    """Chosen items of a data set, each seen through a transform.

    Two views of one data set share its memory; so training and held-out images can come from the same files and differ
    in augmentation. A position that is a :class:`bnnlight.data.loading.sampling.Draw` rules the transform's random
    numbers.

    Args:
        items: has a length and yields what the transform takes.
        transform: from an item to a sample.
        indices: the items to show, in order; all if None.
    """

    def __init__(self, items: Any, transform: Callable[[Any], Any], indices: Sequence[int] | None = None) -> None:
        self.items, self.transform = items, transform
        self.indices = range(len(items)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Any:
        with seeded_by(position):
            return self.sample(self.items[self.indices[position]])

    __getitems__ = items_at

    def sample(self, item: Any) -> Any:
        """An item as it is shown."""
        return self.transform(item)
