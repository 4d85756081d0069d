"""Draws the report of a matrix of runs."""

from __future__ import annotations

import io
import math
from itertools import groupby
from operator import itemgetter
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Record = dict[str, Any]

SEED, MEAN, BASELINE = "#8fb3d9", "#14375e", "#c2571a"


def draw(record: Record) -> bytes:
    """A PNG: each method's seeds, mean and 95 % interval; beside them its differences from the baseline.

    With optimizers each of them has a pair of panels of its own, one below the other on the same scales. Methods
    without a run that is done are left out, unless none has one.

    Args:
        record: of :func:`~bnnlight.matrix.report.record.as_record`.
    """
    rows = [row for row in record["methods"] if row["by_seed"]] or record["methods"]
    bands = [(name, list(members)) for name, members in groupby(rows, key=lambda row: row.get("optimizer", ""))]
    heights = [_places(members)[0][-1] + 1.0 for _, members in bands]
    titles = sum(bool(name) for name, _ in bands)
    figure = Figure(figsize=(12, 2.1 + 0.42 * (sum(heights) + titles)), layout="constrained")
    figure.suptitle(record["title"], fontweight="bold")
    shared = {"sharex": "col", "sharey": "row", "squeeze": False}
    panels = figure.subplots(len(bands), 2, width_ratios=(1.15, 1), height_ratios=heights, **shared)
    for pair, (name, members) in zip(panels, bands, strict=True):
        _band(*pair, members, record)
        pair[0].set_title(name, loc="left", fontsize=11, fontweight="bold")
    left, right = panels[-1]
    unit = f" ({record['unit']})" if record["unit"] else ""
    better = "higher" if record["direction"] == "max" else "lower"
    left.set_xlabel(f"{record['metric_name']}{unit} on the test data, {better} is better")
    of_points = " (points)" if record["unit"] == "%" else ""
    right.set_xlabel(f"difference from {record['baseline']}, paired by seed{of_points}")
    # drawn by hand: a method without runs, or with one seed, has not all of them
    left.plot([], [], "o", color=SEED, markersize=6, label="one seed")
    left.plot([], [], "D-", color=MEAN, markersize=6, label="mean, 95 % interval over the seeds")
    left.plot([], [], color=BASELINE, label=f"baseline: {record['baseline']}")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _band(left: Axes, right: Axes, rows: list[Record], record: Record) -> None:
    places, headings = _places(rows)
    base = next(row for row in record["methods"] if row["method"] == record["baseline"])
    if base["test"]:
        left.axvline(base["test"]["mean"], color=BASELINE, linewidth=2, zorder=1)
    right.axvline(0, color=BASELINE, linewidth=2, zorder=1)
    for y, row in zip(places, rows, strict=True):
        if row["test"]:
            _points(left, y, list(row["by_seed"].values()), row["test"])
        if row["difference"]:
            _points(right, y, list(row["difference"]["by_seed"].values()), row["difference"])
    names = [_label(row, record["baseline"]) for row in rows]
    left.set_yticks([*places, *headings.values()], [*names, *headings])
    for label in left.get_yticklabels()[len(names) :]:
        label.set_fontweight("bold")
    left.set_ylim(places[-1] + 0.5, -0.5)
    for axes in (left, right):
        axes.set_axisbelow(True)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)


def _places(rows: list[Record]) -> tuple[list[float], dict[str, float]]:
    """Where each row stands, downwards, and each heading."""
    places, headings, y = [], {}, 0.0
    for group, members in groupby(rows, key=itemgetter("group")):
        if group:
            headings[group] = y
            y += 0.8
        for _ in members:
            places.append(y)
            y += 1.0
    return places, headings


def _points(axes: Axes, y: float, values: list[float], interval: Record) -> None:
    # above and below the row's middle, so that neither hides the other
    axes.plot(values, [y - 0.13] * len(values), "o", color=SEED, markersize=6, zorder=2)
    error = {"xerr": interval["half_interval"], "capsize": 4} if interval["half_interval"] is not None else {}
    axes.errorbar(interval["mean"], y + 0.13, fmt="D", color=MEAN, markersize=6, linewidth=1.6, zorder=3, **error)


def _label(row: Record, baseline: str) -> str:
    num_done, num_seeds = len(row["by_seed"]), len(row["seeds_asked"])
    # above the panels stands the optimizer
    name = row.get("base", row["method"])
    name = f"{name} (baseline)" if row["method"] == baseline else name
    if num := sum(not math.isfinite(value) for value in row["by_seed"].values()):
        name += f"\n{num} not finite"
    return name if num_done == num_seeds else f"{name}\n{num_done} of {num_seeds} seeds"
