"""How many pictures a second the data modules give: CIFAR-10's and MPII's, with loader processes and without."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from drawn_mpii import draw_mpii
from part import Findings, draw_classes, options

from bnnlight.data import CIFAR10DataModule, MPIIDataModule


def main() -> int:
    """Runs it."""
    asked = options(__doc__)
    findings = Findings(asked.output)
    workers = min(len(os.sched_getaffinity(0)), 16)
    with tempfile.TemporaryDirectory() as folder:
        few = asked.small
        classes = asked.data or draw_classes(Path(folder, "classes"), *(200, 20) if few else (10000, 100))
        people = draw_mpii(Path(folder, "mpii"), *(40, 4) if few else (768, 32))
        modules = {
            "CIFAR-10, 32 px": lambda n: CIFAR10DataModule(str(classes), batch_size=64, num_workers=n, val_size=20),
            "MPII, 256 px": lambda n: MPIIDataModule(
                str(people), image_size=256, batch_size=32, num_workers=n, boxes="raw"
            ),
        }
        seconds = max(1.0, asked.limit_s / 16)
        for name, made in modules.items():
            for number in dict.fromkeys((0, 1, workers)):
                module = made(number)
                module.prepare_data()
                module.setup("fit")
                findings.figure(f"{name}, {number} loader processes", {"pictures_per_s": _rate(module, seconds)})
    return 0


def _rate(module: object, seconds: float) -> float:
    """Behind the first batch, which waits for the processes to start."""
    count, begin = 0, None
    while begin is None or time.perf_counter() - begin < seconds:
        for batch in module.train_dataloader():
            if begin is None:
                begin = time.perf_counter()
                continue
            first = batch[0] if isinstance(batch, (list, tuple)) else next(iter(batch.values()))
            count += len(first)
            if time.perf_counter() - begin > seconds:
                break
    return count / (time.perf_counter() - begin)


if __name__ == "__main__":
    sys.exit(main())
