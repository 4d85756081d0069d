"""The report of a run: its results as a table and as JSON, its curves as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bnnlight.tracking import read_rows

_ACCURACIES = {
    "train/acc": "top-1, train",
    "val/acc1": "top-1, validation",
    "val/pckh": "PCKh@0.5, validation",
    "val/pck": "PCK@0.2, validation",
    "val/pck_box": "PCK@0.2 of the box, validation",
    "val/ap": "AP by OKS, validation",
}
_FLIP_RATE = "bnn/flip_rate_mean"


def read_metrics(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Every key of a run's ``metrics.jsonl``, as (steps, values).

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for row in read_rows(path):
        for name, value in row.items():
            if name not in ("step", "epoch"):
                steps, values = columns.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return columns


def draw_curves(metrics: dict[str, tuple[list[int], list[float]]], path: Path, title: str) -> None:
    """Draws loss, accuracy and flip rate against the step, side by side.

    Each value of a short curve has a mark, since a single one would else not be seen.

    Args:
        metrics: of :func:`read_metrics`.
        path: of the PNG.
        title: over the picture.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    figure.suptitle(title)
    loss, accuracy, flips = figure.subplots(1, 3)
    for name, label in (("train/loss", "train (batch)"), ("val/loss", "validation")):
        if name in metrics:
            style = {"alpha": 0.6 if name == "train/loss" else 1.0, "marker": _marker(metrics[name])}
            loss.plot(*metrics[name], label=label, **style)
    for name, label in _ACCURACIES.items():
        if name in metrics:
            steps, values = metrics[name]
            accuracy.plot(steps, [100 * v for v in values], label=label, marker=_marker(metrics[name]))
    # one curve a layer, from the first layer's dark to the last layer's light, and their mean in front
    layers = [n for n in metrics if n.startswith("bnn/flip_rate/")]
    shades = colormaps["viridis"](np.linspace(0, 1, len(layers)))
    for name, shade in zip(layers, shades, strict=True):
        short = name.removeprefix("bnn/flip_rate/").removeprefix("backbone.")
        style = {"linewidth": 1, "marker": _marker(metrics[name])}
        flips.plot(*metrics[name], color=shade, label=short if len(layers) <= 8 else None, **style)
    if _FLIP_RATE in metrics:
        style = {"linewidth": 2, "marker": _marker(metrics[_FLIP_RATE])}
        flips.plot(*metrics[_FLIP_RATE], color="black", label="all weights", **style)
        flips.set_yscale("log" if min(v for n in (*layers, _FLIP_RATE) for v in metrics[n][1]) > 0 else "linear")
    titles = ("loss", "accuracy (%)", "flip rate (share of weights per look)")
    for axes, label in zip((loss, accuracy, flips), titles, strict=True):
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
        else:
            axes.text(0.5, 0.5, "nothing logged", ha="center", va="center", transform=axes.transAxes)
    figure.savefig(path, dpi=120)


def _marker(column: tuple[list[int], list[float]]) -> str | None:
    return "." if len(column[0]) < 40 else None


def print_results(title: str, results: dict[str, float], places: dict[str, str]) -> None:
    """Prints a table of results and, below, where things lie, one a line.

    Args:
        title: of the table.
        results: metric → value; accuracies are printed in percent.
        places: what → path or command.
    """
    console = Console()
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in results.items():
        table.add_row(name, f"{100 * value:.2f} %" if "/acc" in name or "/pck" in name else f"{value:.4f}")
    console.print(table)
    width = max((len(what) for what in places), default=0)
    for what, where in places.items():
        # one path a line whatever the width of the terminal, so that it can be copied
        console.print(f"{what:<{width}}  {where}", soft_wrap=True, highlight=False, markup=False)


def write_json(path: Path, record: Any) -> None:
    """Writes a record beside its place and moves it there, so that no reader sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=2) + "\n")
    part.replace(path)
