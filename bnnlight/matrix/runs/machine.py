"""Shares out cores and GPUs among runs that train at one time."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Any

_OWN = ("PL_GLOBAL_SEED", "BNNLIGHT_RUN_DIR")
"""Variables of this process that a run must not find."""


class Machine:
    """Shares out cores and GPUs.

    Args:
        jobs: runs at one time; the number of GPUs unless given, or 1.
        threads: CPU threads of each run; its share of the cores unless given.

    Raises:
        ValueError: one of them is below 1.
    """

    def __init__(self, jobs: int | None = None, threads: int | None = None) -> None:
        for name, value in (("jobs", jobs), ("threads", threads)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}: give at least 1")
        self._gpus = _gpus()
        self.jobs = jobs or max(1, len(self._gpus))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = threads or max(1, cores // self.jobs)
        self._gpu_name = _gpu_name() if self._gpus else None

    def env(self, slot: int) -> dict[str, str]:
        """The environment of the run that has a slot, 0 ≤ slot < jobs."""
        env = {name: value for name, value in os.environ.items() if name not in _OWN}
        env |= {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        if self._gpus:
            env["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        return env

    def record(self) -> dict[str, Any]:
        """What a run's time depends on."""
        return {
            "cpu_cores": os.cpu_count(), "cpu": platform.machine(), "gpu": self._gpu_name, "threads": self.threads,
            "jobs": self.jobs,
        }  # fmt: skip


def _gpus() -> list[str]:
    import torch

    named = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(number) for number in range(count)]


def _gpu_name() -> str:
    # not from torch, which would take memory on a GPU that belongs to a run
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return "GPU"
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
