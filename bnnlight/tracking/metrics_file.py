"""`MetricsFile`: a run's figures in a file, one line of JSON a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnnlight.tracking.keys import current
from bnnlight.tracking.log_book import LogBook

FILE_NAME = "metrics.jsonl"


class MetricsFile(Logger):
    """Appends every row of figures to ``metrics.jsonl``: ``{"step": 100, "train/loss": 0.71, …}``.

    A row is in the file as soon as it is logged, so a killed run keeps its figures, and half a line at the end is
    taken away when the run goes on. What a resumed run trains again, because it was stopped after its last
    checkpoint, is in the file already and is not written twice. Only figures are kept, not histograms or pictures;
    figures without a step get the last one's.

    Args:
        save_dir: the run's directory.

    Attributes:
        path: of the file.
        book: what is in it.
    """

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__()
        self.path = Path(save_dir) / FILE_NAME
        self.book = LogBook()
        self._last_step: int | None = None

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run's ``config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if self._last_step is None:
            self._last_step = self._continue()
        step = self._last_step if step is None else step
        self._last_step = max(step, self._last_step)
        figures = {key: float(value) for key, value in metrics.items() if is_figure(value)}
        figures = self.book.new(figures, step)
        if figures:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")

    def _continue(self) -> int:
        """Takes up where an earlier start's rows end; the last step in them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            return 0
        with self.path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
        rows = list(read_rows(self.path))
        self.book.read(rows)
        return max((row["step"] for row in rows), default=0)


def read_rows(path: Path) -> Iterator[dict[str, float]]:
    """Rows of a ``metrics.jsonl``, in the order of logging; half a line at the end of a killed run is left out.

    Figures that an earlier version called otherwise have the names of today.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not a row; the message names it.
    """
    with path.open() as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
                row["step"] = int(row["step"])
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{path}, line {number}: not a row of figures") from None
            yield {current(key): value for key, value in row.items()}


def is_figure(value: Any) -> bool:
    """Whether a logged value is one number."""
    return not isinstance(value, str | bool) and hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0
