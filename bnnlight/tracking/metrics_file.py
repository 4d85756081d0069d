"""A run's figures as a file of its own, one line of JSON a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

FILE_NAME = "metrics.jsonl"


class MetricsFile(Logger):
    """Appends every row of figures to ``metrics.jsonl``: ``{"step": 100, "train/loss": 0.71, …}``.

    A row is in the file as soon as it is logged, so a killed run keeps its figures, and half a line at the end is
    taken away when the run goes on. What a resumed run trains again, because it was stopped after its last
    checkpoint, is in the file already and is not written twice. Only figures are kept, not histograms or pictures.

    Args:
        save_dir: the run's directory.
    """

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__()
        self.path = Path(save_dir) / FILE_NAME
        self._last_steps: dict[str, int] | None = None

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
        if self._last_steps is None:
            self._last_steps = self._continue()
        figures = {key: float(value) for key, value in metrics.items() if is_figure(value)}
        figures = not_logged_before(figures, step, self._last_steps)
        if figures:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")

    def _continue(self) -> dict[str, int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            return {}
        with self.path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
        return last_steps(read_rows(self.path))


def read_rows(path: Path) -> Iterator[dict[str, float]]:
    """Rows of a ``metrics.jsonl``, in the order of logging; half a line at the end of a killed run is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no row; the message names it.
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
            yield row


def is_figure(value: Any) -> bool:
    """Whether a logged value is one number."""
    return not isinstance(value, str | bool) and hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0


def last_steps(rows: Iterator[Mapping[str, Any]], step_key: str = "step") -> dict[str, int]:
    """Each key's last step in rows of one run."""
    found: dict[str, int] = {}
    for row in rows:
        for key in row:
            found[key] = max(int(row[step_key]), found.get(key, -1))
    return found


def not_logged_before(metrics: Mapping[str, Any], step: int | None, last: Mapping[str, int]) -> dict[str, Any]:
    """The metrics whose key has no value yet at this or a later step, with the epoch if there are any.

    Args:
        metrics: key → value.
        step: of the values; None, for figures without a step, lets all through.
        last: of :func:`last_steps`, of what the run logged before it was resumed.
    """
    new = {key for key in metrics if step is None or step > last.get(key, -1)}
    # Lightning hands the epoch over with every row of a step
    return {key: value for key, value in metrics.items() if key in new or (key == "epoch" and new)}
