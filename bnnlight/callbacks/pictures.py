"""Writes sheets of pictures with predictions beside the truth, to the run's directory and to trackers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from bnnlight.tracking.trackers import hand_picture

GAP_PX = 6
SHEET_RATIO = 4 / 3
"""Width to height that a sheet comes near to."""


class Pictures(L.Callback):
    """Writes a sheet of predictions after each validation and each test: to the run's directory and to trackers.

    The files are ``pictures/val-STEP.png`` and ``pictures/test.png``, the keys ``val/pictures`` and
    ``test/pictures``. The task draws them, by its method ``draw(batch, outputs, count)``, which returns at most
    ``count`` pictures ``(H, W, 3)`` uint8 of a measured batch; a task without this method is left alone. The pictures
    are the first ones of rank zero's share of the data, the same each time, so that progress can be seen.

    Args:
        count: number of pictures on a sheet; 0 turns the callback off.
        interval: number of validations from one sheet to the next. The last one of a run is always shown.

    Raises:
        ValueError: the count is negative, or the interval is below 1.
    """

    def __init__(self, count: int = 16, interval: int = 1) -> None:
        if count < 0 or interval < 1:
            raise ValueError(f"count is {count}, interval is {interval}: give at least 0 and 1")
        self.count, self.interval = count, interval
        self._drawn: list[np.ndarray] = []
        self._num_validations = 0

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        if not trainer.sanity_checking:
            self._draw(trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        self._draw(trainer, pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if self._num_validations % self.interval == 0 or last:
            self._show(trainer, "val", f"val-{trainer.global_step:07}.png")
        self._num_validations += 1
        self._drawn = []

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._show(trainer, "test", "test.png")
        self._drawn = []

    def _draw(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any) -> None:
        num_left = self.count - len(self._drawn)
        if trainer.is_global_zero and num_left > 0 and hasattr(task, "draw"):
            self._drawn += task.draw(batch, outputs, num_left)

    @rank_zero_only
    def _show(self, trainer: L.Trainer, split: str, name: str) -> None:
        # without a logger nothing is written, as by the rest of a run
        if not self._drawn or not trainer.loggers:
            return
        sheet = contact_sheet(self._drawn)
        path = Path(trainer.default_root_dir) / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(path)
        hand_picture(trainer.loggers, f"{split}/pictures", path, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"num_validations": self._num_validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._num_validations = state_dict["num_validations"]


def contact_sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures in rows, on a sheet about four units wide to three high with few empty places.

    Args:
        pictures: at least one, each ``(H, W, 3)`` uint8, all of one size.

    Returns:
        ``(height, width, 3)`` uint8.
    """
    height, width = (side + GAP_PX for side in pictures[0].shape[:2])
    count = len(pictures)

    def ugliness(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * width / (rows * height) / SHEET_RATIO)) + (rows * columns - count) / count

    columns = min(range(1, count + 1), key=ugliness)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * height - GAP_PX, columns * width - GAP_PX, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet
