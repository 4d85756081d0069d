"""`Wandb`: what Weights & Biases takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnnlight.tracking.trackers.tracker import Tracker
from bnnlight.tracking.wandb_run import WandbRun

NUM_BINS = 64
"""Of a histogram; W&B draws as many."""


class Wandb(Tracker):
    """Takes pictures, histograms in the row of the figures, and tables."""

    def figures(self, figures: Mapping[str, float], values: Mapping[str, np.ndarray], step: int) -> None:
        import wandb  # takes long to import, and is there wherever a WandbLogger is

        counted = {key: np.histogram(array, NUM_BINS) for key, array in values.items()}
        shown = {key: wandb.Histogram(np_histogram=bins) for key, bins in counted.items()}
        self.logger.log_metrics({**figures, **shown}, step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if isinstance(self.logger, WandbRun):
            self.logger.log_rows(key, columns, rows)
        else:
            self.logger.log_table(key, list(columns), [list(row) for row in rows])

    def config(self, config: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> None:
        self.logger.log_hyperparams(dict(config))
        self.logger.log_hyperparams({"bnnlight": dict(own)})

    def finish(self) -> None:
        if isinstance(self.logger, WandbRun):
            self.logger.finish()
        else:
            self.logger.experiment.finish()
