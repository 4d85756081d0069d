"""`Unit`: how a metric's figures are shown, in % or as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Unit:
    """Shares are shown in %, all else as it is.

    Args:
        metric: its name behind ``val/``.

    Attributes:
        scale: what a logged figure is multiplied by.
        name: of the unit, or "".
    """

    def __init__(self, metric: str) -> None:
        is_share = metric.startswith(("acc", "pck"))
        self.scale, self.name = (100.0, "%") if is_share else (1.0, "")
        self._digits = 2 if is_share else 4

    def number(self, value: float, sign: str = "") -> str:
        """A scaled figure; ``sign="+"`` for differences."""
        if not math.isfinite(value):
            return "not finite"
        return f"{value:{sign}.{self._digits}f}"

    def interval(self, record: Mapping[str, Any], sign: str = "") -> str:
        """A mean with half its interval, of scaled figures.

        Args:
            record: with ``mean`` and ``half_interval``, None where there is none.
            sign: as of :meth:`number`, for the mean.
        """
        half = record["half_interval"]
        return self.number(record["mean"], sign) + (f" ± {self.number(half)}" if half is not None else "")

    def show(self, value: float) -> str:
        """A scaled figure with its unit."""
        return f"{self.number(value)} {self.name}".strip()
