"""Peak resident memory of rows, and what the C library's allocator costs; each in a process of its own."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable
from typing import Any

import torch
from shared_networks import REAL, Setting, make_training
from shared_step import keep_freed_memory, resident_bytes, take_turns

PRELOADED = ["torchvision", "bnnlight.backbones", "bnnlight.data", "bnnlight.commands.bench"]
"""What takes seconds to import. Not the scripts themselves, which the process that is forked does not find."""

NUM_ALLOCATOR_STEPS = 5


def in_own_process(function: Callable[..., Any], *args: object) -> Any:
    """What a function returns that is called in a new process, which shares nothing with those before.

    The process is forked from one that has imported all and computed nothing, so that it starts at once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with context.Pool(1) as pool:
        return pool.apply(function, args)


def peak_memory(setting: Setting, row: str, num_threads: int) -> dict[str, int]:
    """Resident bytes of this process after the imports, and at their largest in a row's step."""
    imported = resident_bytes()[0]
    keep_freed_memory()
    torch.set_num_threads(num_threads)
    training = make_training(setting, row)
    training.make_state()
    training.step()
    return {"imported": imported, "peak": resident_bytes()[1]}


def real_steps(setting: Setting, num_threads: int, keep: bool) -> dict[str, float]:
    """Median seconds of the real network's steps, with the allocator set or left as it comes."""
    if keep:
        keep_freed_memory()
    torch.set_num_threads(num_threads)
    steps = {row: make_training(setting, row).step for row in REAL}
    times = take_turns(steps, NUM_ALLOCATOR_STEPS)
    return {row: statistics.median(seconds[1:]) for row, seconds in times.items()}
