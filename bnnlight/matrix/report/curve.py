"""Draws methods that differ in one number as a curve: what it gives and what it costs."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from bnnlight.matrix.report.figure import BASELINE, MEAN, SEED

Record = dict[str, Any]


def draw_curve(record: Record) -> bytes:
    """A PNG of two panels: the figure on the test data against the number, and the cost of training against it.

    Args:
        record: of :func:`~bnnlight.matrix.report.record.as_record`, with a ``curve``.
    """
    curve, rows = record["curve"], {row["method"]: row for row in record["methods"]}
    picture = Figure(figsize=(12, 4.6), layout="constrained")
    picture.suptitle(f"{record['title']}: {curve['name']}", fontweight="bold")
    left, right = picture.subplots(1, 2)
    unit = f" ({record['unit']})" if record["unit"] else ""
    points = [(x, rows[name]) for name, x in sorted(curve["values"].items(), key=lambda item: item[1])]
    _gain(left, [(x, row) for x, row in points if row["test"]])
    base = rows[record["baseline"]]
    if base["test"]:
        left.axhline(base["test"]["mean"], color=BASELINE, linewidth=2, zorder=1, label=f"baseline: {base['method']}")
    left.set_ylabel(f"{record['metric_name']}{unit}, {'higher' if record['direction'] == 'max' else 'lower'} is better")
    _cost(right, [(x, row) for x, row in points if row["evidence"].get("step_s") and row["trained_parameters"]])
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator([x for x, _ in points]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{x:g}" for x, _ in points])
        axes.set_xlabel(curve["name"])
        axes.grid(alpha=0.3)
        axes.spines[["top"]].set_visible(False)
        handles = axes.get_legend_handles_labels()
        if handles[0]:
            axes.legend(*handles, frameon=False, fontsize=9)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _gain(axes: Axes, points: list[tuple[float, Record]]) -> None:
    for i, (x, row) in enumerate(points):
        values = list(row["by_seed"].values())
        axes.plot([x] * len(values), values, "o", color=SEED, markersize=6, zorder=2, label=None if i else "one seed")
    means = [row["test"]["mean"] for _, row in points]
    halves = [row["test"]["half_interval"] or 0.0 for _, row in points]
    style = {"fmt": "D-", "color": MEAN, "markersize": 6, "linewidth": 1.6, "capsize": 4, "zorder": 3}
    axes.errorbar([x for x, _ in points], means, yerr=halves, label="mean, 95 % interval over the seeds", **style)


def _cost(axes: Axes, points: list[tuple[float, Record]]) -> None:
    places = [x for x, _ in points]
    steps = [1000 * row["evidence"]["step_s"] for _, row in points]
    axes.plot(places, steps, "D-", color=MEAN, markersize=6, linewidth=1.6, label="computing a step (ms), left scale")
    axes.set_ylabel("computing a step (ms)")
    axes.set_ylim(0, 1.15 * max(steps, default=1.0))
    other = axes.twinx()
    numbers = [row["trained_parameters"] for _, row in points]
    other.plot(places, numbers, "s--", color=BASELINE, markersize=6, linewidth=1.6)
    axes.plot([], [], "s--", color=BASELINE, markersize=6, linewidth=1.6, label="trained numbers, right scale")
    other.set_ylabel("trained numbers")
    other.yaxis.set_major_formatter("{x:,.0f}")
    other.set_ylim(0, 1.15 * max(numbers, default=1))
    other.spines[["top"]].set_visible(False)
