"""`TensorBoard`: what TensorBoard takes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bnnlight.tracking.trackers.tracker import Tracker

NUM_BINS = 64
"""Of a histogram. Its own bins are as wide as a tenth of the value, too wide for entries that are close together."""


class TensorBoard(Tracker):
    """Takes pictures, histograms, and tables as text in Markdown."""

    def figures(self, figures: Mapping[str, float], values: Mapping[str, np.ndarray], step: int) -> None:
        self.logger.log_metrics(dict(figures), step=step)
        for key, array in values.items():
            self.logger.experiment.add_histogram(key, array, step, bins=NUM_BINS)

    def picture(self, key: str, path: Path, step: int) -> None:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self.logger.experiment.add_image(key, pixels, step, dataformats="HWC")

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
        self.logger.experiment.add_text(key, text, 0)

    def places(self) -> dict[str, str]:
        folder = self.logger.log_dir.rstrip("/")
        return {"TensorBoard": folder, "to see it": f"tensorboard --logdir {shlex.quote(folder)}"}
