"""Training on a GPU: binary networks with every latent against the real network of the same shape.

ResNet-18 with 1000 classes at 224×224, batch 256, and the hourglass of configs/hg_mpii.yaml at 256×256, batch 64:
random pictures, bfloat16 autocast, channels last, AdamW in one fused call. Each network as it is and under
`torch.compile`; steps of all in one mode are taken in turn in one process. What is measured is written after each mode
of each network, so that a limit loses nothing of it. Peak memory is the most that a step allocates beyond what
was there before it, with the network's own parameters, buffers and optimizer state. Saved bytes are those of
`train_step.py`.

    python benchmarks/training/gpu_train.py --output results/gpu_train
    python benchmarks/training/gpu_train.py --device cpu --small --modes plain      # tries the script without a GPU
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from shared_networks import Setting, chosen, make_training, row_names
from shared_step import Training, quartiles, take_turns
from torch import nn

from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance

SETTINGS = (
    Setting("ResNet-18, 224×224, batch 256", "resnet18", 224, 256, num_rounds=20),
    Setting("hourglass of hg_mpii.yaml, 256×256, batch 64", "hourglass", 256, 64, num_rounds=20),
)
SMALL = (
    Setting("ResNet-18, small", "resnet18", 32, 2, num_rounds=2),
    Setting("hourglass, small", "hourglass", 64, 2, num_rounds=2, features=32),
)
REAL = "real, channels last"
MODES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda network: network,
    # in one graph: torch compiles at most 8 networks of one class, and would run the next ones as they are
    "compiled": partial(torch.compile, fullgraph=True),
}
NUM_WARM_UP = 3
"""Steps of each network before those that are timed."""


class Timed:
    """A training whose steps tell how long they took on the device, and what they allocated.

    Attributes:
        peak_bytes: at most so far, with the network's own; None on a CPU.
    """

    def __init__(self, training: Training) -> None:
        self.training, self.on_gpu = training, training.images.is_cuda
        self.peak_bytes: int | None = 0 if self.on_gpu else None

    def step(self) -> float:
        """Seconds."""
        if self.on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begin = time.perf_counter()
        self.training.step()
        if self.on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        if self.on_gpu:
            allocated = torch.cuda.max_memory_allocated() - before
            self.peak_bytes = max(self.peak_bytes, allocated + self.training.own_bytes())
        return seconds


def measure(
    setting: Setting, names: Sequence[str], mode: str, device: str, until: float = math.inf
) -> dict[str, dict[str, Any]]:
    """One setting: all rows in one mode. A row that fails says why, in one line, and the others go on.

    Args:
        setting: what is trained.
        names: of the rows, the most important ones first.
        mode: one of :data:`MODES`.
        device: where.
        until: no row is begun that, by the longest one so far, would not be ready by this time of ``time.monotonic``.
    """
    rows: dict[str, dict[str, Any]] = {}
    timed: dict[str, Timed] = {}
    longest = 0.0
    for name in names:
        key = f"{name}, {mode}"
        rows[key] = {"mode": mode}
        begin = time.monotonic()
        if begin + longest > until:
            rows[key]["error"] = "left out: no time was left"
            continue
        try:
            training = make_training(setting, name, device, torch.bfloat16, MODES[mode])
            if mode == "plain":
                rows[key]["saved"] = training.counted_step()
            made = Timed(training)
            for _ in range(NUM_WARM_UP):
                made.step()
            timed[key] = made
        except Exception as error:  # a compiler may fail in any way
            rows[key]["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        rows[key]["warm_up_s"] = time.monotonic() - begin
        longest = max(longest, rows[key]["warm_up_s"])
    times = take_turns({key: made.step for key, made in timed.items()}, setting.num_rounds)
    for key, seconds in times.items():
        row = rows[key]
        row["median_ms"] = 1e3 * statistics.median(seconds)
        row["pictures_per_s"] = setting.batch_size / statistics.median(seconds)
        row["peak_bytes"] = timed[key].peak_bytes
        real = f"{REAL}, {row['mode']}"
        if real in times:
            low, middle, high = quartiles([a / b for a, b in zip(seconds, times[real], strict=True)])
            row |= {"ratio": middle, "ratio_quartiles": [low, high]}
            if row["peak_bytes"]:
                row["peak_ratio"] = row["peak_bytes"] / timed[real].peak_bytes
            if "saved" in row:
                row["saved_ratio"] = row["saved"]["all"] / rows[real]["saved"]["all"]
    return rows


def report(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "# Training on a GPU",
        "",
        "Random pictures, bfloat16 autocast, channels last, AdamW in one fused call; steps taken in turn in one "
        "process, medians. Ratios are to the real network in the same mode, of time round by round, with quartiles in "
        "brackets. Saved: distinct storages that the forward pass leaves behind for the backward pass, less "
        "parameters, buffers and batch. Peak: the most that a step allocates, with parameters, buffers and optimizer "
        "state. MB are 10⁶ bytes.",
    ]
    for result in record["results"]:
        lines += ["", f"## {result['setting']['name']}", ""]
        lines += ["| network | ms | pictures a second | times real | saved, MB | times real | peak, MB | times real |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for name, row in result["rows"].items():
            lines.append(f"| {name} | {row['error']} | | | | | | |" if "error" in row else _line(name, row))
    lines += [
        "",
        f"Command: `python benchmarks/training/{record['command']}`, "
        f"commit {record['commit']}, {record['device']} ({record['machine']}), torch "
        f"{record['torch']}, {record['seconds']} s.",
        "",
    ]
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any]) -> str:
    cells = [name, f"{row['median_ms']:.1f}", f"{row['pictures_per_s']:.0f}"]
    if "ratio" in row:
        low, high = row["ratio_quartiles"]
        cells.append(f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})")
    else:
        cells.append("")
    cells.append(f"{row['saved']['all'] / 1e6:.0f}" if "saved" in row else "")
    cells.append(f"{row['saved_ratio']:.2f}" if "saved_ratio" in row else "")
    cells.append(f"{row['peak_bytes'] / 1e6:.0f}" if row["peak_bytes"] else "")
    cells.append(f"{row['peak_ratio']:.2f}" if "peak_ratio" in row else "")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measures both networks, prints JSON, and writes a page where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks and batches, to try the script")
    parser.add_argument("--settings", type=int, nargs="+", choices=(0, 1), default=(0, 1), help="default: both")
    parser.add_argument("--rows", nargs="+", help=f"names as in the table; default: {REAL!r} and all binary ones")
    parser.add_argument("--modes", nargs="+", choices=tuple(MODES), default=tuple(MODES))
    parser.add_argument("--limit_s", type=float, default=math.inf, help="seconds after which no row is begun any more")
    parser.add_argument("--output", type=Path, help="path without ending: writes .md and .json")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_train.py: torch sees no GPU: run it where there is one, or try it with --device cpu --small")
    begin = time.monotonic()
    torch.backends.cudnn.benchmark = True
    try:
        names = chosen(args.rows or [name for name in row_names() if name != "real, contiguous"])
    except ValueError as error:
        parser.error(str(error))
    settings = [(SMALL if args.small else SETTINGS)[index] for index in args.settings]
    record = {
        **provenance(),
        "machine": machine(),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "results": [{"setting": asdict(setting), "rows": {}} for setting in settings],
    }
    for mode in args.modes:
        for setting, result in zip(settings, record["results"], strict=True):
            result["rows"] |= measure(setting, names, mode, args.device, begin + args.limit_s)
            record["seconds"] = round(time.monotonic() - begin)
            if args.output:
                args.output.with_suffix(".json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
                args.output.with_suffix(".md").write_text(report(record))
    print(json.dumps(record, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
