"""When does a binary network pay? Accuracy against time, bytes and multiply-adds of trained networks in OpenVINO.

The networks are those of configs/matrix/imagenette_pareto.yaml, trained from scratch under one budget at 64×64 px, and
an hourglass, binary and real-valued, of configs/matrix/pose_optimizers.yaml. Accuracy is that of the shipped file on
all test pictures, of the size that was trained with; time is that of one larger picture, all networks taking turns in
one process. Real networks are quantized by NNCF where an environment of its own has it: `--nncf_python ENV/bin/python`.

    python benchmarks/shipping/pareto.py --runs runs/matrix --output results/pareto
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from pareto_networks import BITS, Shipped, accuracy, figure_of, shipped
from pareto_page import draw, report

from bnnlight.commands.bench import in_turn
from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance


@dataclass(frozen=True)
class Task:
    """Networks that are compared with one another.

    Attributes:
        title: of its part of the page.
        metric: name behind ``test/``.
        metric_name: for the page.
        size: of the pictures that are timed, px.
        plan: the folder of its matrix of runs, and the start of its ledger's name.
        networks: name → name of the row in the ledger.
    """

    title: str
    metric: str
    metric_name: str
    size: int
    plan: str
    networks: Mapping[str, str]


_CLASSES = (
    "binary ResNet-18",
    "binary ResNet-34",
    "ResNet-18",
    "ResNet-34",
    "MobileNetV2",
    "MobileNetV3-Small",
    "MobileNetV3-Large",
)
_POSE = {"binary hourglass": "dense, learned α, SOAP", "hourglass": "real-valued, SOAP"}
TASKS = (
    Task("Imagenette", "acc1", "test accuracy", 224, "imagenette_pareto", {name: name for name in _CLASSES}),
    Task("Leeds Sports Pose", "pck", "PCK@0.2", 256, "optimizers_pose", _POSE),
)


def checkpoints(ledger: Path, runs: Path, row: str) -> list[Path]:
    """The best checkpoints of a row's final runs, one for each seed.

    Raises:
        FileNotFoundError: a run's folder has none, or the row has no runs.
    """
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    names = [line["run"] for line in lines if line["method"] == row and "/search_" not in line["run"]]
    files = sorted({runs / name / "checkpoints" / "best.ckpt" for name in names})
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise FileNotFoundError(f"{ledger}: {row}: {missing[0] if missing else 'no final run'} is not there")
    return files


def measure(task: Task, ledger: Path, runs: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Accuracy of every seed, and time, bytes and multiply-adds, of all networks of a task."""
    rows: dict[str, dict[str, Any]] = {}
    first: list[Shipped] = []
    for name, row in task.networks.items():
        for file in checkpoints(ledger, runs, row):
            for model in shipped(name, file, task.size, folder, options.nncf_python):
                figure = figure_of(accuracy(file, model.model), task.metric)
                print(f"{model.row}: {task.metric_name} {figure:.2f} %", flush=True)
                if model.row not in rows:
                    first.append(model)
                    start = {"network": name, "kind": model.kind, "accuracy": []}
                    rows[model.row] = start | {"num_bytes": model.num_bytes, "macs": model.macs}
                rows[model.row]["accuracy"].append(figure)
    picture = np.random.default_rng(0).normal(size=tuple(first[0].large.input(0).shape)).astype(np.float32)
    times = in_turn({model.row: model.timed(1) for model in first}, picture, options.num_runs)
    for row, seconds in times.items():
        low, middle, high = 1e3 * np.quantile(seconds, (0.1, 0.5, 0.9))
        rows[row] |= {"median_ms": middle, "tenth_ms": low, "ninetieth_ms": high}
    return {"title": task.title, "metric_name": task.metric_name, "size": task.size, "rows": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all networks, and writes a page, its figures and a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--runs", type=Path, action="append", required=True, help="of a plan, one for each of two")
    parser.add_argument("--ledgers", type=Path, default=Path("results"), help="folder of the runs' ledgers")
    parser.add_argument("--num_runs", type=int, default=40, help="of each network, in turn")
    parser.add_argument("--nncf_python", help="Python of an environment with nncf")
    parser.add_argument("--in_words", default="", help="the page's first paragraph")
    parser.add_argument("--output", type=Path, required=True, help="path without ending: writes .md, .json and .png")
    options = parser.parse_args(arguments)
    start = time.time()
    tasks = []
    with tempfile.TemporaryDirectory() as folder:
        for task, runs in zip(TASKS, options.runs, strict=False):
            tasks.append(measure(task, options.ledgers / f"{task.plan}.runs.jsonl", runs, options, Path(folder)))
    record = {
        **provenance(),
        "machine": machine(),
        "versions": {"torch": torch.__version__, "openvino": ov.get_version().split("-")[0]},
        "bits": BITS,
        "in_words": options.in_words,
        "int8": "NNCF" if options.nncf_python else "bnnlight bench's",
        "num_runs": options.num_runs,
        "tasks": tasks,
        "seconds": round(time.time() - start),
    }
    options.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    options.output.with_suffix(".png").write_bytes(draw(record))
    options.output.with_suffix(".md").write_text(report(record, options.output.name))


if __name__ == "__main__":
    main()
