"""One picture of a comparison, a panel, and what all panels share: colours, thinned curves, style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.colors import qualitative

MAX_POINTS = 3000
"""Of all curves of a panel together; a page of many runs stays small."""
_MANY_COLORS = [*qualitative.Dark24, *qualitative.Bold]


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: of it.
        figure: what it shows; each trace has as its ``meta`` the number of its run.
        run: number of the run that it is of; None where it shows several.
    """

    title: str
    figure: go.Figure
    run: int | None = None


def colors_of(num_runs: int) -> list[str]:
    """One colour a run: colour-blind safe ones for up to 11 runs, else 35 that repeat."""
    colors = qualitative.Safe if num_runs <= len(qualitative.Safe) else _MANY_COLORS
    return [colors[number % len(colors)] for number in range(num_runs)]


def curve(x: list[float], y: list[float | None], name: str, number: int, line: dict[str, Any]) -> go.Scatter:
    """A run's curve; with a mark at each point where there are few, since a single one would else not be seen."""
    return go.Scatter(x=x, y=y, name=name, line=line, mode="lines+markers" if len(x) < 40 else "lines", meta=number)


def thinned(points: Sequence[tuple[float, float | None]], most: int) -> tuple[list[float], list[float | None]]:
    """x and y of a curve; of a long one the means of points that follow each other, each at its last point's x."""
    size = max(1, math.ceil(len(points) / max(1, most)))
    x, y = [], []
    for begin in range(0, len(points), size):
        part = points[begin : begin + size]
        values = [value for _, value in part if value is not None]
        x.append(part[-1][0])
        y.append(sum(values) / len(values) if values else None)
    return x, y


def rounded(value: float | None) -> float | None:
    """To five digits, as more are not seen; None for what is not finite, as it cannot be drawn."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def styled(figure: go.Figure, height: int) -> go.Figure:
    """Without legend and template, which a page has once for all panels."""
    figure.update_layout(height=height, margin={"l": 55, "r": 15, "t": 32, "b": 45}, showlegend=False)
    return figure.update_xaxes(automargin=True).update_yaxes(automargin=True)
