"""What the scripts of the acceptance's parts share: their options, what they write, and runs of `bnnlight fit`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bnnlight.data.classes.vision import CIFAR10_CLASSES


def check(name: str, asked: str, found: Any, ok: bool) -> dict[str, Any]:
    """A row of the page: what was asked, what was found."""
    return {"name": name, "asked": asked, "found": found, "ok": bool(ok)}


class Findings:
    """Figures and checks of a part, written after each, so that what was found before a failure is there.

    Args:
        output: the JSON file.
    """

    def __init__(self, output: Path) -> None:
        self._output, self._record = output, {"figures": {}, "checks": []}

    def figure(self, name: str, value: Any) -> None:
        """Keeps a number, a word, or a row of them."""
        self._record["figures"][name] = value
        self._write()

    def check(self, name: str, asked: str, found: Any, ok: bool) -> None:
        """Keeps what was asked, and what was found."""
        self._record["checks"].append(check(name, asked, found, ok))
        self._write()

    def _write(self) -> None:
        self._output.write_text(json.dumps(self._record, ensure_ascii=False))


def options(doc: str) -> argparse.Namespace:
    """The options of a part's script."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="few steps of tiny networks")
    parser.add_argument("--limit_s", type=float, default=100.0, help="for all of it")
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parsed = parser.parse_args()
    parsed.end = time.monotonic() + parsed.limit_s
    return parsed


def fit_command(config: str, run_dir: Path, device: str, *words: str) -> list[str]:
    """`bnnlight fit` on one device, without a tracker."""
    accelerator = "gpu" if device == "cuda" else "cpu"
    return [
        *(sys.executable, "-m", "bnnlight", "fit", "--config", config, "--run_dir", str(run_dir)),
        *(
            f"--trainer.accelerator={accelerator}",
            "--trainer.devices=1",
            "--trainer.logger=bnnlight.tracking.MetricsFile",
        ),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--pictures.count=0"),
        *words,
    ]


def run(command: Sequence[str]) -> None:
    """Runs it to its end.

    Raises:
        CalledProcessError: it failed.
    """
    subprocess.run(command, check=True)


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """What a run has logged so far; a line that is being written is left out."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def draw_classes(root: Path, num_train: int, num_test: int) -> Path:
    """CIFAR-10-shaped pictures: stripes of ten directions under noise, in folders of CIFAR-10's names."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    for split, number in (("train", num_train), ("test", num_test)):
        for index in range(number):
            angle = np.pi * (index % 10) / 10
            stripes = np.sin(0.9 * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6.3))
            pixels = 128 + 60 * stripes[..., None] * rng.uniform(0.3, 1, 3) + rng.normal(0, 40, (32, 32, 3))
            folder = root / split / CIFAR10_CLASSES[index % 10]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return root
