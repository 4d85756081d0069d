"""The page and the picture of `pareto.py`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

COLORS = {"binary": "#c2571a", "real": "#14375e"}
COSTS = {
    "median_ms": ("time for a picture, one thread (ms)", "ms"),
    "num_bytes": ("size of the file with the weights (MB)", "MB"),
    "real_macs": ("multiply-adds that are not binary (millions)", "million multiply-adds"),
}
"""What a network costs → as on an axis, and its unit in a sentence."""


def costs(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's costs in the units of :data:`COSTS`."""
    real = (row["macs"]["int8"] + row["macs"]["float32"]) / 1e6
    return {"median_ms": row["median_ms"], "num_bytes": row["num_bytes"] / 1e6, "real_macs": real}


def front(rows: Mapping[str, Mapping[str, Any]], cost: str) -> list[str]:
    """The rows that no other one beats or equals in accuracy at the same cost or less, cheapest first."""
    by_cost = sorted(rows, key=lambda name: (costs(rows[name])[cost], -_mean(rows[name])))
    names: list[str] = []
    for name in by_cost:
        if not names or _mean(rows[name]) > _mean(rows[names[-1]]):
            names.append(name)
    return names


def draw(record: Mapping[str, Any]) -> bytes:
    """A PNG: a row of panels for each task, accuracy against each cost, with the line of those that none beats."""
    tasks = record["tasks"]
    figure = Figure(figsize=(15, 5.2 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), len(COSTS), squeeze=False, sharey="row")
    for axes, task in zip(panels, tasks, strict=True):
        for panel, (cost, (label, _)) in zip(axes, COSTS.items(), strict=True):
            _panel(panel, task["rows"], cost)
            panel.set_xlabel(label)
        axes[0].set_ylabel(f"{task['metric_name']} (%)")
        axes[0].set_title(f"{task['title']}, timed at {task['size']}×{task['size']} px", loc="left", fontweight="bold")
    for kind, color in COLORS.items():
        panels[0, 0].plot([], [], "o", color=color, label=f"{kind}, float32")
        panels[0, 0].plot([], [], "o", color=color, markerfacecolor="white", label=f"{kind}, real layers on int8")
    panels[0, 0].plot([], [], color="#999999", label="none is better at this cost")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _panel(panel: Axes, rows: Mapping[str, Mapping[str, Any]], cost: str) -> None:
    best = front(rows, cost)
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3, which="both", axis="x")
    places = [(costs(rows[name])[cost], _mean(rows[name])) for name in best]
    panel.step(*zip(*places, strict=True), where="post", color="#999999", linewidth=1, zorder=1)
    named: list[tuple[float, float]] = []
    for name, row in sorted(rows.items(), key=lambda item: costs(item[1])[cost]):
        color = COLORS[row["kind"].split(",")[0]]
        fill = "white" if row["kind"].endswith("int8") else color
        place = (costs(row)[cost], _mean(row))
        panel.plot(*place, "o", color=color, markerfacecolor=fill, markersize=7, zorder=2)
        if not row["kind"].endswith("int8"):
            # names of neighbors stand above and below
            is_near = any(place[0] < 2 * x and abs(place[1] - y) < 0.5 for x, y in named)
            where = {"xytext": (5, -12)} if is_near else {"xytext": (5, 5)}
            panel.annotate(name, place, **where, textcoords="offset points", fontsize=8)
            named.append(place)
    panel.margins(x=0.22, y=0.12)


def report(record: Mapping[str, Any], picture: str) -> str:
    """The record as Markdown."""
    lines = ["# When does a binary network pay?", ""]
    if record.get("in_words"):
        lines += [record["in_words"], ""]
    lines += [" ".join(sentence for task in record["tasks"] for sentence in verdict(task)), ""]
    lines += [f"![Accuracy against time, bytes and multiply-adds]({picture}.png)", ""]
    for task in record["tasks"]:
        heading = f"## {task['title']}, timed at {task['size']}×{task['size']} px"
        lines += [heading, "", *_table(task), "", " ".join(summary(task)), ""]
    lines += [
        "Trained from scratch under one budget, the same pictures, epochs and optimizer, each network at its own "
        "learning rate; so networks that take long to learn stand lower than elsewhere. Accuracy is that of the "
        "shipped file in OpenVINO, on the whole test set and in the size that was trained with; time is the median of "
        f"{record['num_runs']} runs of one larger picture, one thread, all networks of a table in turn. Int8: of "
        f"binary networks `bnnlight export --int8`, of real ones {record['int8']}. Bytes are those of `model.bin`. "
        "With several seeds, means ± standard deviation; timed are the files of the first.",
        "",
        f"Command: `python benchmarks/shipping/{record['command']}`, commit {record['commit']}, {record['machine']}, "
        f"torch {record['versions']['torch']}, OpenVINO {record['versions']['openvino']}.",
        "",
    ]
    return "\n".join(lines)


def verdict(task: Mapping[str, Any]) -> list[str]:
    """In sentences: each binary network in 8 bits beside its real twin, and the best real one that is as quick."""
    rows, sentences = task["rows"], []
    for name, row in rows.items():
        twin = rows.get(name.removeprefix("binary "))
        if row["kind"] != "binary, int8" or twin is None:
            continue
        time, size = (row[cost] / twin[cost] for cost in ("median_ms", "num_bytes"))
        points = _mean(row) - _mean(twin)
        text = (
            f"{task['title']}: {name} has {time:.2f} of the time and {size:.2f} of the bytes of {twin['network']}, int8"
        )
        text += f", and {abs(points):.1f} points {'less' if points < 0 else 'more'} accuracy"
        as_quick = [other for other in rows if not _is_binary(rows[other]) and _as_quick(rows[other], row)]
        if as_quick:
            best = max(as_quick, key=lambda other: _mean(rows[other]))
            text += f"; the best real network that is as quick, {best}, "
            text += f"has {_mean(rows[best]):.1f} % for {_mean(row):.1f} %"
        else:
            text += "; no real network here is as quick"
        sentences.append(f"{text}.")
    return sentences


def _is_binary(row: Mapping[str, Any]) -> bool:
    return row["kind"].startswith("binary")


def _as_quick(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return row["median_ms"] <= other["median_ms"]


def summary(task: Mapping[str, Any]) -> list[str]:
    """In sentences: the networks of each cost that none beats, cheapest first."""
    rows, sentences = task["rows"], []
    for cost, (_, unit) in COSTS.items():
        listed = [
            f"{name} ({_mean(rows[name]):.1f} %, {costs(rows[name])[cost]:.3g} {unit})" for name in front(rows, cost)
        ]
        sentences.append(f"Unbeaten by {unit}, from the cheapest on: {', '.join(listed)}.")
    return sentences


def _table(task: Mapping[str, Any]) -> list[str]:
    rows = task["rows"]
    on_front = {cost: front(rows, cost) for cost in COSTS}
    lines = [
        f"| network | {task['metric_name']} | median ms | 10 % to 90 % | MB | binary multiply-adds | int8 | float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items(), key=lambda pair: -_mean(pair[1])):
        spread = f" ± {np.std(row['accuracy'], ddof=1):.2f}" if len(row["accuracy"]) > 1 else ""
        macs = [
            f"{row['macs'][kind] / 1e6:,.0f} M" if row["macs"][kind] else "" for kind in ("binary", "int8", "float32")
        ]
        time = _bold(f"{row['median_ms']:.2f}", name in on_front["median_ms"])
        size = _bold(f"{row['num_bytes'] / 1e6:.2f}", name in on_front["num_bytes"])
        cells = (name, f"{_mean(row):.2f}{spread}", time, f"{row['tenth_ms']:.2f} to {row['ninetieth_ms']:.2f}", size)
        lines.append(f"| {' | '.join((*cells, *macs))} |")
    return [*lines, "", "Bold: no network is at least as accurate at this cost."]


def _bold(text: str, is_best: bool) -> str:
    return f"**{text}**" if is_best else text


def _mean(row: Mapping[str, Any]) -> float:
    values: Sequence[float] = row["accuracy"]
    return float(np.mean(values))
