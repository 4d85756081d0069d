"""`Tracker`: what a logger of any kind takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers.logger import Logger


class Tracker:
    """Takes figures and the config, and pictures where the logger has W&B's method ``log_image``.

    A logger that has a method ``finish`` is told so at the end of the run.

    Args:
        logger: one of the trainer's.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def figures(self, figures: Mapping[str, float], values: Mapping[str, np.ndarray], step: int) -> None:
        """Takes figures, and arrays of which to show a histogram.

        Args:
            figures: key → number.
            values: key → array ``(N,)`` of float64, finite.
            step: the optimizer step.
        """
        self.logger.log_metrics(dict(figures), step=step)

    def picture(self, key: str, path: Path, step: int) -> None:
        """Takes a picture from a file.

        Args:
            key: such as ``val/pictures``.
            path: of a PNG.
            step: the optimizer step.
        """
        if hasattr(self.logger, "log_image"):
            self.logger.log_image(key, [str(path)], step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Takes a table.

        Args:
            key: such as ``bnn/layers``.
            columns: their names.
            rows: one value a column.
        """

    def config(self, config: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> None:
        """Takes what the run is made of.

        Args:
            config: nested, as in ``config.yaml``.
            own: version, commit and command.
            path: of ``config.yaml``.
        """
        self.logger.log_hyperparams({**config, "bnnlight": dict(own)})

    def to_go_on(self) -> dict[str, str]:
        """Arguments by which another logger of the class goes on with this run; none where its place is enough."""
        return {}

    def finish(self) -> None:
        """Ends the run, once all is handed over."""
        if hasattr(self.logger, "finish"):
            self.logger.finish()

    def places(self) -> dict[str, str]:
        """Where the run is to be seen: what → path or command."""
        return {}
