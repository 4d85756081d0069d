"""Draws what is logged of each binary layer: maps of layer × step, means over time, last values layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from bnnlight.tracking.panels import MAX_POINTS, Panel, colors_of, curve, rounded, styled, thinned
from bnnlight.tracking.runs import Run

_MAX_CELLS = 100_000
"""Of all heat maps together; a page of many runs stays small."""
_SMALLEST_RATE = 1e-5
"""Flip rates below it have the colour of no flips at all."""
_DASHES = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "dash-dotted", "longdash": "long-dashed"}
"""Plotly's lines, and what they are called."""
_SYMBOLS = ("circle", "diamond", "x", "square", "cross")


def heat_maps(runs: Sequence[Run], names: Sequence[str], prefix: str) -> list[Panel]:
    """Layer × step, one map a run, all with one colour scale in powers of ten."""
    panels = []
    shown = [(number, run, layers) for number, run in enumerate(runs) if (layers := _layers([run], prefix))]
    rows = sum(len(layers) for *_, layers in shown)
    top = max(
        (v for _, run, layers in shown for layer in layers for v in run.series[prefix + layer].values()), default=1
    )
    ticks = list(range(round(math.log10(_SMALLEST_RATE)), 1))
    scale = {
        "colorscale": "Viridis", "cmin": ticks[0], "cmax": min(0.0, _logarithm(top)),
        "colorbar": {"tickvals": ticks, "ticktext": [f"{10.0**t:g}" for t in ticks], "thickness": 12},
    }  # fmt: skip
    for number, run, layers in shown:
        steps = sorted({step for layer in layers for step in run.series[prefix + layer]})
        looks = [[(step, run.series[prefix + layer].get(step)) for step in steps] for layer in layers]
        columns = [thinned(look, max(1, _MAX_CELLS // rows)) for look in looks]
        rates = [values for _, values in columns]
        figure = go.Figure(
            go.Heatmap(
                x=columns[0][0], y=[short_layer(layer) for layer in layers],
                z=[[None if r is None else round(_logarithm(r), 3) for r in line] for line in rates],
                text=[["" if r is None else f"{r:.3g}" for r in line] for line in rates], coloraxis="coloraxis",
                hovertemplate="%{y}<br>step %{x}: %{text}<extra></extra>", meta=number,
            )
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed", type="category", tickfont={"size": 10}, **_ticks(layers, 60))
        figure.update_xaxes(title_text="step")
        figure.update_layout(coloraxis=scale)
        panels.append(Panel(names[number], styled(figure, 120 + max(140, 16 * len(layers))), number))
    return panels


def _logarithm(rate: float) -> float:
    return math.log10(max(rate, _SMALLEST_RATE))


def over_time_and_layers(runs: Sequence[Run], names: Sequence[str], prefix: str, whole: str = "") -> list[Panel]:
    """A figure of the layers: its mean over them against the step, and its last value layer by layer.

    Networks that have no layer in common have panels of their own in the latter.

    Args:
        runs, names: as everywhere here.
        prefix: of the keys; what follows it is the layer, or the layer and a mode.
        whole: prefix of what the figure is shown as a share of; "": as it is.
    """
    modes = _modes(runs, prefix)
    dashes, symbols = dict(zip(modes, _DASHES, strict=False)), dict(zip(modes, _SYMBOLS, strict=False))
    colors = colors_of(len(runs))
    over_time, groups = go.Figure(), _networks(runs, prefix)
    by_layer = {id(group): go.Figure() for group in groups}
    num_curves = max(1, len(runs) * len(modes))
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        for mode in modes:
            layers = [layer for layer in _layers([run], prefix) if _mode(layer) == mode]
            mine = {layer: values for layer in layers if (values := _share(run, prefix, whole, layer))}
            if not mine:
                continue
            label = f"{name}, {mode}" if mode else name
            steps = sorted(set.intersection(*(set(values) for values in mine.values())))
            means = [(step, sum(values[step] for values in mine.values()) / len(mine)) for step in steps]
            x, y = thinned(means, max(2, MAX_POINTS // num_curves))
            line = {"color": colors[number], "dash": dashes.get(mode, "solid")}
            over_time.add_trace(curve(x, [rounded(value) for value in y], label, number, line))
            group = next(group for group in groups if group & {layer.split("/")[0] for layer in mine})
            by_layer[id(group)].add_trace(
                go.Scatter(
                    x=[short_layer(layer.split("/")[0]) for layer in mine],
                    y=[rounded(list(values.values())[-1]) for values in mine.values()],
                    mode="markers", marker={"color": colors[number], "symbol": symbols.get(mode, "circle")},
                    name=label, meta=number,
                )
            )  # fmt: skip
    over_time.update_xaxes(title_text="step")
    panels = [Panel("mean over the layers", styled(over_time, 360))]
    for group in groups:
        figure = by_layer[id(group)]
        if figure.data:
            order = _in_order(group)
            figure.update_xaxes(type="category", categoryorder="array", categoryarray=[short_layer(x) for x in order])
            figure.update_xaxes(tickfont={"size": 10}, **_ticks(order, 20))
            panels.append(Panel("by layer, last look", styled(figure, 360)))
    for panel in panels:
        panel.figure.update_yaxes(rangemode="tozero" if whole or "/alpha" not in prefix else "normal")
    return panels


def short_layer(layer: str) -> str:
    """A layer's path without what all paths have in front."""
    return layer.removeprefix("backbone.")


def _ticks(layers: Sequence[str], most: int) -> dict[str, Any]:
    """Labels of an axis of layers, so few and short that they leave room for the picture; the mouse shows each path."""
    names = [short_layer(layer) for layer in layers][:: max(1, math.ceil(len(layers) / most))]
    return {"tickvals": names, "ticktext": [name if len(name) <= 22 else f"…{name[-21:]}" for name in names]}


def lines_of_modes(runs: Sequence[Run], prefix: str) -> str:
    """Which line is which mode's, as "mode0 solid, mode1 dashed"; "" where a layer has one figure alone."""
    modes = _modes(runs, prefix)
    return ", ".join(map(" ".join, zip(modes, _DASHES.values(), strict=False))) if len(modes) > 1 else ""


def _share(run: Run, prefix: str, whole: str, layer: str) -> dict[int, float]:
    values = run.series.get(prefix + layer, {})
    if not whole:
        return values
    nominal = run.series.get(whole + layer, {})
    return {step: value / nominal[step] for step, value in values.items() if nominal.get(step)}


def _mode(layer: str) -> str:
    return layer.split("/", 1)[1] if "/" in layer else ""


def _modes(runs: Sequence[Run], prefix: str) -> list[str]:
    """What of a layer is looked at; not the factors, whose ranks are another story."""
    return list(
        dict.fromkeys(mode for layer in _layers(runs, prefix) if not (mode := _mode(layer)).startswith("factor"))
    )


def _layers(runs: Sequence[Run], prefix: str) -> list[str]:
    """Layers in the order of their names, numbers in them by size."""
    return _in_order({key.removeprefix(prefix) for run in runs for key in run.series if key.startswith(prefix)})


def _in_order(layers: set[str]) -> list[str]:
    return sorted(layers, key=lambda layer: [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in layer.split(".")])


def _networks(runs: Sequence[Run], prefix: str) -> list[set[str]]:
    """The layers of each kind of network: runs that have a layer in common are of one kind."""
    groups: list[set[str]] = []
    for run in runs:
        mine = {layer.split("/")[0] for layer in _layers([run], prefix)}
        if mine:
            same = [group for group in groups if group & mine]
            groups = [group for group in groups if not group & mine] + [mine.union(*same)]
    return groups
