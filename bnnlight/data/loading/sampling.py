"""Which pictures a process sees, in which order, and with which random numbers.

What a training loader draws depends only on the run's seed, the epoch and the position in the data set: not
on the number of loader workers or processes, nor on whether the run was resumed at an epoch's start.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler, default_collate


def run_seed() -> int:
    """The run's seed: what ``seed_everything`` was given, or else the one of torch's generator."""
    chosen = os.environ.get("PL_GLOBAL_SEED")
    return torch.initial_seed() if chosen is None else int(chosen)


class Draw(int):
    """A position in a data set that carries the seed of what is random in showing it.

    It is an integer, so a data set that knows nothing of seeds can be indexed with it too.

    Args:
        position: from 0.
        seed: from 0, below 2³²: numpy does not accept more, and torch ignores it on the CPU.
    """

    seed: int

    def __new__(cls, position: int, seed: int) -> Draw:
        draw = super().__new__(cls, position)
        draw.seed = seed
        return draw

    def __getnewargs__(self) -> tuple[int, int]:
        # on its way to a loader worker it is pickled
        return int(self), self.seed


_are_kept = False


@contextmanager
def generators_kept() -> Iterator[None]:
    """Afterwards the generators of torch (on the CPU), numpy and Python stand where they stood before.

    Within another such block nothing is left to do: taking down and putting back numpy's state takes 0.1 ms, longer
    than to decode a small picture.
    """
    global _are_kept
    if _are_kept:
        yield
        return
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _are_kept = True
    try:
        yield
    finally:
        _are_kept = False
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


@contextmanager
def seeded_by(position: int) -> Iterator[None]:
    """Within, a :class:`Draw`'s seed rules the random numbers of torch (on the CPU), numpy and Python.

    Afterwards the generators stand where they stood, so loading in the main process takes no random numbers
    away from training. A plain position seeds nothing.
    """
    if not isinstance(position, Draw):
        yield
        return
    with generators_kept():
        # torch.manual_seed would seed the GPUs as well, on which the training draws its own numbers
        torch.default_generator.manual_seed(position.seed)
        random.seed(position.seed)
        np.random.seed(position.seed)
        yield


def items_at(dataset: Any, positions: Sequence[int]) -> list[Any]:
    """The items at several positions, as ``[dataset[p] for p in positions]``, with the generators kept once for all.

    A data set whose items are :func:`seeded_by` their positions has it as its ``__getitems__``, which torch's loaders
    ask for a batch.
    """
    if not all(isinstance(position, Draw) for position in positions):
        return [dataset[position] for position in positions]
    with generators_kept():
        return [dataset[position] for position in positions]


class TrainSampler(DistributedSampler):
    """Reshuffles each epoch and deals the positions out to the processes in turn, as :class:`Draw`.

    Order and seeds follow from the run's seed and the epoch; rank r of R takes the places r, r + R, r + 2R, … of
    the order. So the i-th batches of R processes, B pictures each, hold together what the i-th batch of R·B pictures
    of a single process holds. As a ``DistributedSampler`` it is left alone by Lightning, which tells it the epoch; a
    loop of your own has to do so: ``loader.sampler.set_epoch(epoch)``.

    Args:
        dataset: has a length.
        seed: of the run, from 0; the same on all ranks.
        num_replicas: R.
        rank: r, from 0.
        drop_last: shares of equal length; up to R − 1 pictures are left out, different ones each epoch. Without it, the
            shares differ by one picture at most, and with fewer pictures than processes some are seen twice, since
            each process has to take part in a step.

    Attributes:
        start: how many places of its share the next pass leaves out at the beginning; 0 again after it has begun.

    Raises:
        ValueError: the data set is empty.
    """

    def __init__(
        self, dataset: Sized, seed: int, num_replicas: int = 1, rank: int = 0, drop_last: bool = False
    ) -> None:
        num = len(dataset)
        if not num:
            raise ValueError("the training set is empty: nothing can be drawn from it")
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=drop_last)
        self.total_size = num - num % num_replicas if drop_last else max(num, num_replicas)
        self.num_samples = len(range(rank, self.total_size, num_replicas))
        self.start = 0

    def __iter__(self) -> Iterator[Draw]:
        order, seeds = self._order()
        start, self.start = self.start, 0
        share = np.resize(order, self.total_size)[self.rank :: self.num_replicas][start:]
        return map(Draw, share.tolist(), seeds[share].tolist())

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """``(N,)`` positions in the order of this epoch, and ``(N,)`` the seed of each position."""
        numbers = np.random.default_rng([self.seed, self.epoch])
        seeds = numbers.integers(2**32, size=len(self.dataset))
        return numbers.permutation(len(self.dataset)), seeds


class SameSampler(TrainSampler, SequentialSampler):
    """Deals out the same pictures each epoch, in the data set's order and with the same random numbers.

    For Lightning's check whether a network can overfit a few batches (``trainer.overfit_batches``). Lightning would put
    torch's ``SequentialSampler`` in the place of any other kind, which knows nothing of seeds, epochs and processes.
    """

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        num = len(self.dataset)
        return np.arange(num), np.random.default_rng(self.seed).integers(2**32, size=num)


class UnpaddedSampler(DistributedSampler, SequentialSampler):
    """Deals the positions out to the processes in turn, in order, each to one process only.

    As a ``SequentialSampler`` it is left alone by Lightning where a few batches are to be overfitted.

    torch's own sampler repeats some, so that all processes get equally many, and they would count twice. Shares
    differ by one picture at most. A process without any still gets the first position: each has to take part
    in the measuring, with a batch that :func:`no_items` empties.

    Args:
        dataset: has a length.
        num_replicas: number of processes.
        rank: of this one, from 0.
    """

    def __init__(self, dataset: Sized, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        num = len(dataset)
        self.positions = range(rank, num, num_replicas) or range(min(1, num))
        self.num_samples = len(self.positions)
        self.total_size = num

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)


def no_items(samples: list[Any]) -> Any:
    """Collates to a batch of the usual form, dtypes and shapes, that holds no items."""
    return apply_to_collection(default_collate(samples), Tensor, lambda tensor: tensor[:0])
