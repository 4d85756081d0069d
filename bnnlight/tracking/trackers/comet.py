"""`Comet`: what Comet takes."""

from __future__ import annotations

import json
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnnlight.tracking.trackers.tracker import Tracker


class Comet(Tracker):
    """Takes pictures, histograms and tables, online and offline."""

    def figures(self, figures: Mapping[str, float], values: Mapping[str, np.ndarray], step: int) -> None:
        self.logger.log_metrics(dict(figures), step=step)
        for key, array in values.items():
            self.logger.experiment.log_histogram_3d(array, name=key, step=step)

    def picture(self, key: str, path: Path, step: int) -> None:
        self.logger.experiment.log_image(str(path), name=key, step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        rows = [list(row) for row in rows]
        self.logger.experiment.log_table(f"{key}.csv", tabular_data=rows, headers=list(columns))

    def config(self, config: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> None:
        self.logger.log_hyperparams(dict(config))
        self.logger.experiment.log_others({f"bnnlight/{key}": value for key, value in own.items()})

    def to_go_on(self) -> dict[str, str]:
        return {"experiment_key": self.logger.version, "mode": "get"}

    def finish(self) -> None:
        # offline, this is what writes the file to upload
        self.logger.experiment.end()

    def places(self) -> dict[str, str]:
        if "Offline" not in type(self.logger.experiment).__name__:
            return {}
        folder = Path(self.logger.save_dir).parent
        return {"Comet offline": str(folder), "to upload it": f"comet upload {shlex.quote(str(folder))}/*/*.zip"}


def offline_rows(folder: Path) -> list[dict[str, float]]:
    """The figures in the files that offline starts of a run have left, each as ``{"step": …, key: value, "epoch": …}``.

    A start that was killed leaves an empty file, or none.

    Args:
        folder: with one folder a start.
    """
    rows = []
    for path in sorted(folder.glob("*/*.zip")):
        try:
            with zipfile.ZipFile(path) as archive:
                messages = [json.loads(line) for line in archive.read("messages.json").splitlines()]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            continue
        figures = [message["payload"]["metric"] for message in messages if message.get("type") == "metric_msg"]
        for figure in figures:
            if figure.get("step") is not None:
                epoch = {} if figure.get("epoch") is None else {"epoch": figure["epoch"]}
                rows.append({"step": figure["step"], figure["metricName"]: figure["metricValue"], **epoch})
    return rows
