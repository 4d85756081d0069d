"""Time and memory of a training step: binary networks with every latent against the real network of the same shape.

ResNet-18 with 1000 classes at 96×96, batch 32, and with a small-image stem at 32×32, batch 128, against torchvision's;
the hourglass of configs/hg_mpii.yaml at 128×128, batch 4, against its real-valued twin. Random pictures, single
precision. A step is forward pass, cross entropy (of the heat maps' pixels), backward pass and AdamW in one fused call,
or the optimizer that stands in the row's name.
Steps of all networks are taken in turn in one process. Ratios are to the real network in the memory format in which it
is quicker, round by round; binary networks are channels last, as `bnnlight fit` has them. All have the C library keep
freed memory, real ones too. The package `bnn` joins where an environment of its own has it.

- saved bytes: distinct storages that a forward pass leaves behind for the backward pass, less parameters, buffers and
  batch;
- peak memory: resident, of a process that takes a step of this row alone, the optimizer's state being there, less what
  it has after its imports;
- optimizer: bytes of its state; slowest: the longest of 50 steps of a row with an optimizer of its own, over the real
  network's median;
- floor: multiply-adds of a step over the rates that this machine reaches in the same run, each the best over the
  network's 3×3 convolutions and both memory formats: real convolution forward and backward, int8 product (forward pass
  of binary layers) and real matrix product (weights rebuilt from factors: forward, and twice
  for the gradients). Nothing but multiply-adds is in it, and none that is done twice to save memory.

    python benchmarks/training/train_step.py --peer-python ENV/bin/python --output results/train_step
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from shared_networks import LEAN, REAL, WITH, Setting, chosen, make_batch, make_network, make_training
from shared_step import keep_freed_memory, quartiles, take_turns
from train_step_floor import as_record, convolution_shapes, count_work, measure_rates
from train_step_memory import in_own_process, peak_memory, real_steps
from train_step_report import report

from bnnlight.deploy.formats.workers import num_cores
from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance

SETTINGS = (
    Setting("ResNet-18, 96×96, batch 32", "resnet18", 96, 32, num_rounds=7),
    Setting("ResNet-18, small-image stem, 32×32, batch 128", "resnet18", 32, 128, num_rounds=3, stem="small"),
    Setting("hourglass of hg_mpii.yaml, 128×128, batch 4", "hourglass", 128, 4, num_rounds=5),
)
PEER = "bnn"
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")
"""Of processors: what the rates hang on."""


@dataclass(frozen=True)
class Limits:
    """Largest ratios to the real network.

    Attributes:
        large, small: step time with the ImageNet stem (and of the hourglass), and with the small-image stem.
        saved: saved bytes.
        lean_saved: saved bytes in the lean mode, whose time may be larger by :data:`LEAN_TIME`.
        slowest: the longest of :data:`NUM_SLOWEST` steps.
    """

    large: float
    small: float
    saved: float
    lean_saved: float
    slowest: float | None = None


LIMITS = {
    "dense": Limits(1.12, 1.10, 1.05, 0.50),
    "Matrix": Limits(1.40, 1.20, 1.08, 0.53),
    "Tucker 0.5": Limits(1.35, 1.15, 1.08, 0.53),
    "Tucker": Limits(1.65, 1.20, 1.08, 0.53),
    "Holistic": Limits(1.75, 1.20, 1.08, 0.53),
    "dense + Muon": Limits(1.40, 1.10, 1.05, 0.50),
    "dense + Muon, bf16": Limits(1.40, 1.10, 1.05, 0.50),
    "dense + SOAP": Limits(1.60, 1.15, 1.05, 0.50, slowest=2.2),
    "dense + SOAP, bf16": Limits(1.60, 1.15, 1.05, 0.50, slowest=2.2),
    "Rotated": Limits(1.08, 1.03, 1.08, 0.53),
    "Rotated, blocks of 32, bf16": Limits(1.08, 1.03, 1.08, 0.53),
    "Matrix, bf16": Limits(1.45, 1.20, 1.08, 0.53),
    "Tucker 0.5, bf16": Limits(1.35, 1.20, 1.08, 0.53),
    "Tucker, bf16": Limits(1.85, 1.20, 1.08, 0.53),
    "Holistic, bf16": Limits(1.95, 1.20, 1.08, 0.53),
}
LEAN_TIME = 0.30
NUM_SLOWEST = 50


class Peer:
    """The package `bnn` in its own environment, told step by step what to do."""

    def __init__(self, python: str, setting: Setting, num_threads: int) -> None:
        command = [python, str(Path(__file__).with_name("train_step_peer.py")), f"--threads={num_threads}"]
        command += [f"--image-size={setting.image_size}", f"--batch-size={setting.batch_size}"]
        command += [f"--stem={setting.stem}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._answer()

    def ask(self, what: str) -> Any:
        """``count``, ``step`` or ``memory``."""
        print(what, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"the peer's process ended with {self._process.wait()}: see its error above")
        return json.loads(line)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()


def limits(setting: Setting, row: str, rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """What a row's ratios of time and saved bytes may be; nothing for real networks and the peer."""
    name = row.removesuffix(LEAN)
    if name not in LIMITS:
        return {}
    goal = LIMITS[name]
    if row.endswith(LEAN):
        allowed = {"saved": goal.lean_saved}
        return {"time": rows[name]["ratio"] + LEAN_TIME, **allowed} if name in rows else allowed
    found = {"time": goal.small if setting.stem == "small" else goal.large, "saved": goal.saved}
    return found | ({"slowest": goal.slowest} if goal.slowest and "slowest" in rows[name] else {})


def measure(setting: Setting, names: Sequence[str], num_threads: int, peer_python: str | None) -> dict[str, Any]:
    """One setting: all rows with their ratios, limits and floors."""
    memory = {name: in_own_process(peak_memory, setting, name, num_threads) for name in names}
    allocator = {
        text: in_own_process(real_steps, setting, num_threads, keep)
        for text, keep in (("kept", True), ("as it comes", False))
        if setting.stem != "small"  # where steps are long
    }
    real = next(name for name in names if name in REAL)
    rates = measure_rates(convolution_shapes(make_network(setting, real), make_batch(setting)[0]))
    steps: dict[str, Callable[[], Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    found: dict[str, Any] = {"setting": asdict(setting)}
    with ExitStack() as stack:
        for name in names:
            training = make_training(setting, name)
            # the first step is not a measurement: it makes the optimizer's state
            work = count_work(training.network, setting.input_shape, setting.batch_size)
            rows[name] = {"saved": training.counted_step(), **as_record(work, rates)}
            rows[name]["optimizer_bytes"] = training.optimizer_bytes()
            steps[name] = training.step
        if peer_python and setting.network == "resnet18":
            peer = stack.enter_context(Peer(peer_python, setting, num_threads))
            rows[PEER] = {"saved": peer.ask("count"), "floor_ms": rows[real]["floor_ms"]}
            steps[PEER] = lambda: peer.ask("step")
            found["peer"] = peer.versions
        times = take_turns(steps, setting.num_rounds)
        if PEER in rows:
            memory[PEER] = peer.ask("memory")
        slowest = {}
        if setting.network == "resnet18" and setting.stem != "small":
            slowest = {name: take_turns({name: steps[name]}, NUM_SLOWEST)[name] for name in names if WITH in name}
    baseline = min(REAL.keys() & set(names), key=lambda name: statistics.median(times[name]))
    for name, row in rows.items():
        low, middle, high = quartiles([a / b for a, b in zip(times[name], times[baseline], strict=True)])
        row["step_ms"] = [1e3 * second for second in times[name]]
        row["median_ms"] = statistics.median(row["step_ms"])
        row |= {"ratio": middle, "ratio_quartiles": [low, high]}
        row["saved_ratio"] = row["saved"]["all"] / rows[baseline]["saved"]["all"]
        row["peak_bytes"] = memory[name]["peak"] - memory[name]["imported"]
        row["imported_bytes"] = memory[name]["imported"]
        if name in slowest:
            row["slowest"] = max(slowest[name]) / statistics.median(times[baseline])
    for name, row in rows.items():
        row["limits"] = limits(setting, name, rows)
        row["within_limits"] = all(
            row[key] <= row["limits"][kind]
            for kind, key in (("time", "ratio"), ("saved", "saved_ratio"), ("slowest", "slowest"))
            if kind in row["limits"]
        )
    return {**found, "baseline": baseline, "rates": asdict(rates), "real_step_s_by_allocator": allocator, "rows": rows}


def cpu_flags() -> list[str]:
    """Those of :data:`FLAGS` that the processor has; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    words = {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}
    return [flag for flag in FLAGS if flag in words]


def main() -> None:
    """Measures all settings, prints JSON, and writes a page where asked; ends with 1 where a limit is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--settings", type=int, nargs="+", default=range(len(SETTINGS)), help="0, 1, 2; default: all")
    parser.add_argument("--rows", nargs="+", help="names as in the table; default: all")
    parser.add_argument("--rounds", type=int, help="steps of each row that are timed; default: 7, 3 and 5")
    parser.add_argument("--peer-python", help="Python of an environment with bnn")
    parser.add_argument("--output", type=Path, help="path without ending: writes .md and .json")
    args = parser.parse_args()
    begin = time.time()
    try:
        names = chosen(args.rows)
    except ValueError as error:
        parser.error(str(error))
    settings = [SETTINGS[index] for index in args.settings]
    if args.rounds:
        settings = [Setting(**asdict(setting) | {"num_rounds": args.rounds}) for setting in settings]
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    results = [measure(setting, names, args.threads, args.peer_python) for setting in settings]
    record = {
        **provenance(),
        "machine": machine(),
        "cpu_flags": cpu_flags(),
        "num_threads": args.threads,
        "torch": torch.__version__,
        "results": results,
        "within_limits": all(row["within_limits"] for result in results for row in result["rows"].values()),
        "seconds": round(time.time() - begin),
    }
    print(json.dumps(record, indent=2, ensure_ascii=False))
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        args.output.with_suffix(".md").write_text(report(record))
    sys.exit(0 if record["within_limits"] else 1)


if __name__ == "__main__":
    main()
