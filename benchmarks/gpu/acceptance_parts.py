"""The parts of the acceptance: what each runs, for how long, and what of it is kept."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_part import check

HERE = Path(__file__).resolve().parent
Record = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where, and how large, a part runs.

    Attributes:
        folder: for what it writes on the way.
        device: ``cuda`` or ``cpu``.
        small: whether it is tried without a GPU.
        data: folder with CIFAR-10, or None.
    """

    folder: Path
    device: str
    small: bool
    data: Path | None


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: as ``--only`` takes it.
        title: what it shows.
        limit_s: seconds, of 480 in all; where the whole has another length, in proportion.
        command: from the place, the file to write and the limit to the words of a command.
        read: what is kept, from what the command wrote.
    """

    name: str
    title: str
    limit_s: float
    command: Callable[[Place, Path, float], list[str]]
    read: Callable[[Place, Record], Record] = lambda place, record: record


def script(name: str) -> Callable[[Place, Path, float], list[str]]:
    """The command of a part that is a script beside this file."""

    def command(place: Place, output: Path, limit_s: float) -> list[str]:
        words = [sys.executable, str(HERE / name), "--device", place.device, "--output", str(output)]
        words += ["--limit_s", f"{limit_s:.0f}"] + ["--small"] * place.small
        return words + (["--data", str(place.data)] if place.data else [])

    return command


def _tests(place: Place, output: Path, limit_s: float) -> list[str]:
    xml = place.folder / "tests.xml"
    return [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "tests/gpu",
        "-p",
        "no:cacheprovider",
        f"--junitxml={xml}",
    ]


def _read_tests(place: Place, record: Record) -> Record:
    suite = ElementTree.parse(place.folder / "tests.xml").getroot()
    suite = suite if suite.tag == "testsuite" else suite[0]
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    bad = [case.get("name") for case in suite if case.find("failure") is not None or case.find("error") is not None]
    return {
        "figures": counts,
        "checks": [check("tests on the device", "all pass", bad or f"{counts['tests']} pass", not bad)],
    }


def _train(place: Place, output: Path, limit_s: float) -> list[str]:
    words = [sys.executable, str(HERE.parent / "training/gpu_train.py"), "--device", place.device]
    # what goals are for comes first; all others are rows of the whole benchmark
    rows = ["dense", "Tucker", *([] if place.small else ("dense, lean", "Holistic", "dense + SOAP", "dense + Muon"))]
    # compiling one network can take longer than all that is left: what is written by then counts
    return [
        *(*words, "--output", str(output.with_suffix("")), *["--small"] * place.small),
        *(("--modes", "plain") if place.small else ()),
        *("--limit_s", f"{0.8 * limit_s:.0f}", "--rows", "real, channels last", *rows),
    ]


def _read_train(place: Place, record: Record) -> Record:
    checks, figures = [], {}
    for result in record["results"]:
        title, rows = result["setting"]["name"], result["rows"]
        for name, row in rows.items():
            kept = ("median_ms", "pictures_per_s", "ratio", "peak_ratio", "saved_ratio", "error")
            figures[f"{title}: {name}"] = {key: row[key] for key in kept if key in row}
        dense, tucker = rows.get("dense, plain", {}), rows.get("Tucker, plain", {})
        if place.small or "ratio" not in dense:
            continue
        checks += [
            check(f"{title}: step, dense", "≤ 1.15 × real", round(dense["ratio"], 2), dense["ratio"] <= 1.15),
            check(
                f"{title}: saved, dense", "≤ 0.6 × real", round(dense["saved_ratio"], 2), dense["saved_ratio"] <= 0.6
            ),
        ]
        if "ratio" in tucker:
            beside = tucker["median_ms"] / dense["median_ms"]
            checks.append(check(f"{title}: step, Tucker", "≤ 1.10 × dense", round(beside, 2), beside <= 1.10))
    return {"figures": figures, "checks": checks}


PARTS = (
    Part("tests", "layers, gradients, half precision, optimizers, export on the device", 80, _tests, _read_tests),
    Part("bits", "activations as bits: kernels against plain code, and their time", 20, script("acceptance_bits.py")),
    Part("processes", "NCCL with one process, and torchrun", 60, script("acceptance_processes.py")),
    Part("pose", "hg_mpii.yaml for 200 steps, killed and resumed", 100, script("acceptance_pose.py")),
    Part("loading", "pictures a second of the data modules", 30, script("acceptance_loading.py")),
    Part("train", "time and memory of a step beside the real network's", 110, _train, _read_train),
    Part("classify", "ResNet-18 on CIFAR-10 for the rest of the time", 80, script("acceptance_classify.py")),
)
"""In their order. Broken parts are found first by the quick ones."""
