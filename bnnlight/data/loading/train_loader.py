"""Training loader that can be resumed in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bnnlight.data.loading.bad_images import ImageLoader
from bnnlight.data.loading.sampling import TrainSampler


class TrainLoader(ImageLoader):
    """Hands out the batches of a :class:`TrainSampler`, and remembers how many.

    Lightning keeps what ``state_dict`` returns in its checkpoints, and hands it to ``load_state_dict`` before a resumed
    run asks for the first batch. What was already trained on is not loaded again.

    Its arguments are those of ``DataLoader``.
    """

    sampler: TrainSampler

    _count = 0
    _resumed: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:
        # Nothing happens before the first batch is asked for: Lightning takes an iterator before it tells the epoch and
        # where in it the run was stopped.
        self._count, self._resumed = self._first(), None
        self.sampler.start = self._count * self.batch_size
        for batch in super().__iter__():
            self._count += 1
            yield batch

    def _first(self) -> int:
        """Number of the first batch of a pass."""
        resumed = self._resumed
        return resumed["num_batches"] if resumed and resumed["epoch"] == self.sampler.epoch else 0

    def state_dict(self) -> dict[str, int]:
        """The epoch, how many of its batches were handed out, and how many pictures each holds in all processes."""
        # of a run that goes on and has not asked for a batch yet, those of the earlier start count
        count = self._count if self._resumed is None else self._first()
        return {"epoch": self.sampler.epoch, "num_batches": count, "total_batch_size": self._total_batch_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Lets the next pass over the same epoch begin where :meth:`state_dict` was taken.

        Raises:
            ValueError: it was taken within an epoch of batches of another size.
        """
        total = state_dict["total_batch_size"]
        if total != self._total_batch_size and 0 < state_dict["num_batches"] < len(self):
            raise ValueError(
                f"the run was stopped within an epoch, where a step took {total} pictures in all processes, and now it "
                f"takes {self._total_batch_size}: choose data.batch_size and the number of processes to give {total}"
            )
        self._resumed = dict(state_dict)

    @property
    def _total_batch_size(self) -> int:
        return self.batch_size * self.sampler.num_replicas
