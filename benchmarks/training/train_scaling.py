"""How the cost of a training step grows: with the batch, the width, the rank and the layers of a holistic group.

Residual networks of sizes around one in the middle; steps of all sizes and latents of a part are taken in turn in one
process. Drawn are the medians of the time and the saved bytes (see `train_step.py`), both axes logarithmic; the
slope that the legend names is that of the line of least squares through the logarithms: 1 is linear. Time may grow
with the batch at most linearly.

    python benchmarks/training/train_scaling.py --output results/scaling
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from shared_networks import LATENTS
from shared_step import Training, keep_freed_memory, labelled_pictures, take_turns
from torch import nn

from bnnlight.backbones import ResNet
from bnnlight.deploy.formats.workers import num_cores
from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance
from bnnlight.nn import Holistic, LatentFactory, Matrix, Tucker, real_valued

REAL = "real"
NETWORK = {"blocks": (2, 2, 2, 2), "num_classes": 1000, "width": 0.5}
BATCH_SIZE, IMAGE_SIZE = 16, 64
BATCH_SLOPE = 1.05
"""Largest slope of the time over the batch: linear, and five hundredths for what measurements scatter."""


def make(latent: LatentFactory | None, batch_size: int = BATCH_SIZE, **options: Any) -> Training:
    """A residual network that differs from :data:`NETWORK` in these options; None: its real-valued twin."""
    torch.manual_seed(0)
    network: nn.Module = ResNet(**NETWORK | options, **({"latent": latent} if latent else {}))
    network = (network if latent else real_valued(network)).to(memory_format=torch.channels_last)
    images, labels = labelled_pictures(batch_size, IMAGE_SIZE)
    return Training(network, images.contiguous(memory_format=torch.channels_last), labels)


@dataclass(frozen=True)
class Part:
    """One quantity that is varied.

    Attributes:
        name: of the quantity.
        values: that it takes.
        lines: what is compared.
        make: from value and line to a training.
    """

    name: str
    values: tuple[float, ...]
    lines: tuple[str, ...]
    make: Callable[[float, str], Training]


def latent(line: str) -> LatentFactory | None:
    """At full rank."""
    return None if line == REAL else LATENTS[line]


def of_rank(value: float, line: str) -> Training:
    """Rank as a fraction of the full one."""
    # the plain start of each: at full rank too, as below it there is no other
    kinds = {"Matrix": partial(Matrix, start="balanced"), "Tucker": Tucker, "Holistic": Holistic}
    return make(partial(kinds[line], rank=value))


def of_layers(value: float, line: str) -> Training:
    """One stage, whose convolutions are all of one shape, 128 → 128 channels."""
    return make(latent(line), blocks=(int(value) // 2,), width=2.0)


ALL = (REAL, "dense", "Matrix", "Tucker", "Holistic")
PARTS = (
    Part("batch size", (8, 16, 32, 64, 128), ALL, lambda value, line: make(latent(line), batch_size=int(value))),
    Part("width", (0.25, 0.5, 0.75, 1.0), ALL, lambda value, line: make(latent(line), width=value)),
    Part("rank, share of the full one", (0.25, 0.5, 0.75, 1.0), ("Matrix", "Tucker", "Holistic"), of_rank),
    Part("layers of one shape", (2, 4, 8, 16), (REAL, "dense", "Tucker", "Holistic"), of_layers),
)


def slope(x: list[float], y: list[float]) -> float:
    """Of the line of least squares through (log x, log y)."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def measure(part: Part, num_rounds: int) -> dict[str, Any]:
    """Milliseconds and saved megabytes of all lines at all values, and their slopes."""
    trainings = {(line, value): part.make(value, line) for line in part.lines for value in part.values}
    saved = {key: training.counted_step()["all"] for key, training in trainings.items()}
    times = take_turns({key: training.step for key, training in trainings.items()}, num_rounds)
    lines = {}
    for line in part.lines:
        step_ms = [1e3 * statistics.median(times[line, value]) for value in part.values]
        saved_mb = [saved[line, value] / 1e6 for value in part.values]
        lines[line] = {
            "step_ms": step_ms,
            "saved_mb": saved_mb,
            "time_slope": slope(part.values, step_ms),
            "saved_slope": slope(part.values, saved_mb),
        }
    return {"name": part.name, "values": part.values, "lines": lines}


def draw(record: dict[str, Any], path: Path) -> None:
    """Time above, saved bytes below, a column for each part."""
    results = record["results"]
    figure = Figure(figsize=(4.2 * len(results), 7.5), layout="constrained")
    axes = figure.subplots(2, len(results), squeeze=False)
    rows = (("step_ms", "time_slope", "step, ms"), ("saved_mb", "saved_slope", "saved for the backward pass, MB"))
    for column, result in enumerate(results):
        for row, (figures, slopes, label) in enumerate(rows):
            axis = axes[row, column]
            for line, found in result["lines"].items():
                text = f"{line}: slope {found[slopes]:.2f}"
                place = ALL.index(line)
                # the later the thinner, so that lines in the same place can be seen
                style = {"color": f"C{place}", "linewidth": 3 - 0.5 * place, "markersize": 8 - place}
                axis.plot(result["values"], found[figures], "o-", label=text, **style)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            low, high = axis.get_ylim()
            # at least a factor of two, or a level line would look steep
            axis.set_ylim(min(low, (low * high / 2) ** 0.5), max(high, (2 * low * high) ** 0.5))
            axis.set_xticks(result["values"], [f"{value:g}" for value in result["values"]])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.yaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter("{x:g}")
            axis.set_xlabel(result["name"])
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    figure.suptitle(
        f"Training step of a residual network of 16 binary layers, width {NETWORK['width']:g}, "
        f"{IMAGE_SIZE}×{IMAGE_SIZE} px, batch {BATCH_SIZE}, but for what is varied; {record['machine']}, "
        f"on {record['num_threads']} of them, torch {record['torch']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures all parts, prints JSON, and draws where asked; ends with 1 where time grows faster than the batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--rounds", type=int, default=5, help="steps of each size and latent that are timed")
    parser.add_argument("--output", type=Path, help="path without ending: writes .png and .json")
    args = parser.parse_args()
    begin = time.time()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    results = [measure(part, args.rounds) for part in PARTS]
    steepest = max(found["time_slope"] for found in results[0]["lines"].values())
    record = {
        **provenance(),
        "machine": machine(),
        "num_threads": args.threads,
        "torch": torch.__version__,
        "network": NETWORK | {"batch_size": BATCH_SIZE, "image_size": IMAGE_SIZE},
        "rounds": args.rounds,
        "results": results,
        "batch_slope": {"steepest": steepest, "limit": BATCH_SLOPE, "within_limit": steepest <= BATCH_SLOPE},
        "seconds": round(time.time() - begin),
    }
    print(json.dumps(record, indent=2, ensure_ascii=False))
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        draw(record, args.output.with_suffix(".png"))
    sys.exit(0 if steepest <= BATCH_SLOPE else 1)


if __name__ == "__main__":
    main()
