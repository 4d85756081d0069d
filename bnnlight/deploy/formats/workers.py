"""Computes the pictures of one call, and the calls of many threads, in parallel on a bounded number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import TypeVar

import numpy as np

MOST = 16
"""Pictures in one piece of a batch: what a call takes in memory does not grow with its batch."""
READY = 2
"""Pictures for each one that is computed at a time: as many again stand ready."""

Made = TypeVar("Made")


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """What an engine computes with; any number of threads may call it.

    With a number of threads, a call computes with that many, one picture after the other. Without one, each picture is
    computed by one thread, and as many pictures at a time as there are cores.

    Args:
        num_threads: of one call, or None.
        prepare: called once in each thread with ``per_picture``, before anything else; then nothing is computed in the
            callers' own threads.

    Attributes:
        per_picture: threads that compute one picture.
        at_a_time: how many pictures are computed at a time, over all callers; as many again are let in beside them.

    Raises:
        ValueError: the number is below 1.
    """

    def __init__(self, num_threads: int | None, prepare: Callable[[int], None] | None = None) -> None:
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads is {num_threads}: give at least 1")
        self.per_picture = num_threads or 1
        self.at_a_time = max(1, num_cores() // self.per_picture)
        self._in_a_call = 1 if num_threads else self.at_a_time
        self._prepare = prepare
        # a caller that is let in has yet to wake up and to get Python's lock: meanwhile a core would have nothing to do
        self._free = Semaphore(READY * self.at_a_time)
        self._threads = ThreadPoolExecutor(self.at_a_time, "bnnlight", prepare, (self.per_picture,) if prepare else ())

    def __call__(self, run: Callable[[np.ndarray], Made], images: np.ndarray) -> list[Made]:
        """What ``run`` makes of each piece of a batch, in order; at least one.

        Args:
            run: gives for each picture what it would give for it alone.
            images: ``(N, C, H, W)``; N may be 0.
        """
        count = max(1, -(-len(images) // MOST), min(len(images), self._in_a_call))
        pieces = np.array_split(images, count)
        beside = count > 1 and self._in_a_call > 1
        if beside:
            return list(self._threads.map(lambda piece: self._bounded(run, piece), pieces))
        if self._prepare:
            return [self._threads.submit(self._bounded, run, piece).result() for piece in pieces]
        return [self._bounded(run, piece) for piece in pieces]

    def _bounded(self, run: Callable[[np.ndarray], Made], images: np.ndarray) -> Made:
        with self._free:
            return run(images)
