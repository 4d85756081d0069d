"""Draws the figures in which runs are compared, with plotly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from bnnlight.tracking.runs import Run

_CURVES = {
    "train/loss": "loss, train",
    "val/loss": "loss, validation",
    "train/acc": "top-1, train",
    "val/acc1": "top-1, validation",
    "val/pckh": "PCKh@0.5, validation",
    "val/pck": "PCK@0.2, validation",
    "val/pck_box": "PCK@0.2 of the box, validation",
    "val/ap": "AP by OKS, validation",
}
_PROCESSOR_TIME = "time/processor"
_COLORS = qualitative.Safe
_SMALLEST_RATE = 1e-5
"""Flip rates below it have the colour of no flips at all."""

Described = tuple[str, str, go.Figure]
"""Title, one sentence, figure."""


def all_figures(runs: Sequence[Run], names: Sequence[str]) -> Iterator[Described]:
    """Every figure for which the runs have data.

    Args:
        runs: to compare.
        names: one label a run.
    """
    keys = {key for run in runs for key in run.series}
    if keys & _CURVES.keys():
        text = "The training loss is that of single batches; the training accuracy is the epoch's mean."
        yield "Learning curves", text, learning_curves(runs, names)
    if any(_by_processor_time(run) for run in runs):
        text = "Accuracy of validations against the seconds of processor time since training began."
        yield "Accuracy by processor time", text, time_curves(runs, names)
    if any(key.startswith("bnn/flip_rate/") for key in keys):
        text = "Share of a layer's binary weights that changed sign since the look before; layers from the input down."
        yield "Flip rates", text, heat_maps(runs, names, "bnn/flip_rate/")
    if any(key.startswith("bnn/rank_effective/") for key in keys):
        text = (
            "Effective rank of each mode's unfolding of the latent weight, exp(entropy of the normalized singular "
            "values), as a share of its nominal rank: over time as the layers' mean, and by layer at the last look."
        )
        yield "Ranks", text, over_time_and_layers(runs, names, "bnn/rank_effective/", "bnn/rank_nominal/")
    for prefix, title, text in (
        ("bnn/alpha_mean/", "α", "Mean scaling factor of each layer: their mean over time, and by layer at the end."),
        ("bnn/dead/", "Dead channels", "Share of channels whose binary activation never changed in a look's batches."),
        ("bnn/cut/", "Cut gradients", "Share of activations beyond ±1, where the clipped gradient is zero."),
        (
            "bnn/update_rank/",
            "Rank of updates",
            "Effective rank of the change of a latent weight in one optimizer step.",
        ),
        (
            "bnn/update_follows/",
            "Updates and gradients",
            "Share of latent weights that one optimizer step moves against their gradient; 1 for a step by its signs.",
        ),
    ):
        if any(key.startswith(prefix) for key in keys):
            yield title, text, over_time_and_layers(runs, names, prefix)


def learning_curves(runs: Sequence[Run], names: Sequence[str]) -> go.Figure:
    """Losses and accuracies against the step, one colour a run."""
    points = [{key: list(run.series[key].items()) for key in _CURVES if run.series.get(key)} for run in runs]
    return _curves(points, names, "step")


def time_curves(runs: Sequence[Run], names: Sequence[str]) -> go.Figure:
    """Accuracies of validations, %, against the processor seconds that they came after, one colour a run."""
    return _curves([_by_processor_time(run) for run in runs], names, "processor seconds")


def _curves(points: Sequence[dict[str, list[tuple[float, float]]]], names: Sequence[str], x_title: str) -> go.Figure:
    """Of each run's losses and accuracies, (x, value): one picture a key, two in a row."""
    shown = [key for key in _CURVES if any(key in of_run for of_run in points)]
    num_rows = -(-len(shown) // 2)
    figure = make_subplots(num_rows, min(2, len(shown)), subplot_titles=[_CURVES[key] for key in shown])
    for place, key in enumerate(shown):
        for number, (of_run, name) in enumerate(zip(points, names, strict=True)):
            if key not in of_run:
                continue
            x, values = zip(*of_run[key], strict=True)
            curve = go.Scatter(
                x=x, y=values if "loss" in key else [100 * value for value in values], name=name, legendgroup=name,
                line={"color": _color(number)}, mode="lines+markers" if len(x) < 40 else "lines", showlegend=place == 0,
            )  # fmt: skip
            figure.add_trace(curve, place // 2 + 1, place % 2 + 1)
        figure.update_yaxes(title_text="loss" if "loss" in key else "%", row=place // 2 + 1, col=place % 2 + 1)
        figure.update_xaxes(title_text=x_title, row=place // 2 + 1, col=place % 2 + 1)
    return _styled(figure, 340 * num_rows)


def _by_processor_time(run: Run) -> dict[str, list[tuple[float, float]]]:
    """Of each accuracy of validations: (processor seconds, value), where both were logged."""
    seconds = run.series.get(_PROCESSOR_TIME, {})
    curves = {
        key: [(seconds[step], value) for step, value in run.series.get(key, {}).items() if step in seconds]
        for key in _CURVES
        if key.startswith("val/") and "loss" not in key
    }
    return {key: points for key, points in curves.items() if points}


def heat_maps(runs: Sequence[Run], names: Sequence[str], prefix: str) -> go.Figure:
    """Layer × step, one map a run, all with one colour scale in powers of ten."""
    layers = _layers(runs, prefix)
    gap = 0.3 / (2 + len(runs))
    figure = make_subplots(len(runs), 1, subplot_titles=list(names), shared_xaxes=True, vertical_spacing=gap)
    for row, run in enumerate(runs, 1):
        steps = sorted({step for layer in layers for step in run.series.get(prefix + layer, {})})
        rates = [[run.series.get(prefix + layer, {}).get(step) for step in steps] for layer in layers]
        colors = [[None if r is None else math.log10(max(r, _SMALLEST_RATE)) for r in line] for line in rates]
        text = [["" if r is None else f"{r:.3g}" for r in line] for line in rates]
        figure.add_trace(
            go.Heatmap(
                x=steps, y=[short_layer(layer) for layer in layers], z=colors, text=text, coloraxis="coloraxis",
                hovertemplate="%{y}<br>step %{x}: %{text}<extra></extra>",
            ),
            row, 1,
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category", tickfont={"size": 10})
    figure.update_xaxes(title_text="step", row=len(runs), col=1)
    ticks = list(range(round(math.log10(_SMALLEST_RATE)), 1))
    bar = {"title": "flip rate", "tickvals": ticks, "ticktext": [f"{10.0**t:g}" for t in ticks]}
    figure.update_layout(coloraxis={"colorscale": "Viridis", "colorbar": bar})
    return _styled(figure, 120 + len(runs) * max(180, 18 * len(layers)))


def over_time_and_layers(runs: Sequence[Run], names: Sequence[str], prefix: str, whole: str = "") -> go.Figure:
    """A figure of the layers: its mean over them against the step, and its last value layer by layer.

    Args:
        runs, names: as everywhere here.
        prefix: of the keys; what follows it is the layer, or the layer and a mode.
        whole: prefix of what the figure is shown as a share of; "": as it is.
    """
    titles = ["mean over the layers", "by layer, last look"]
    figure = make_subplots(1, 2, subplot_titles=titles, column_widths=[0.45, 0.55])
    layers = [layer for layer in _layers(runs, prefix) if "/factor" not in layer]
    modes = list(dict.fromkeys(_mode(layer) for layer in layers))
    dashes = dict(zip(modes, ("solid", "dash", "dot", "dashdot", "longdash"), strict=False))
    symbols = dict(zip(modes, ("circle", "diamond", "x", "square", "cross"), strict=False))
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        for mode in modes:
            mine = {layer: _share(run, prefix, whole, layer) for layer in layers if _mode(layer) == mode}
            mine = {layer: values for layer, values in mine.items() if values}
            if not mine:
                continue
            label = f"{name}, {mode}" if mode else name
            steps = sorted(set.intersection(*(set(values) for values in mine.values())))
            means = [sum(values[step] for values in mine.values()) / len(mine) for step in steps]
            style = {"color": _color(number), "dash": dashes.get(mode, "solid")}
            shared = {"name": label, "legendgroup": label}
            figure.add_trace(go.Scatter(x=steps, y=means, line=style, mode="lines+markers", **shared), 1, 1)
            figure.add_trace(
                go.Scatter(
                    x=[short_layer(layer.split("/")[0]) for layer in mine],
                    y=[list(values.values())[-1] for values in mine.values()],
                    mode="markers", marker={"color": _color(number), "symbol": symbols.get(mode, "circle")},
                    showlegend=False, **shared,
                ),
                1, 2,
            )  # fmt: skip
    figure.update_xaxes(title_text="step", row=1, col=1)
    figure.update_xaxes(tickfont={"size": 10}, row=1, col=2)
    figure.update_yaxes(rangemode="tozero" if whole or "/alpha" not in prefix else "normal")
    return _styled(figure, 480)


def short_layer(layer: str) -> str:
    """A layer's path without what all paths have in front."""
    return layer.removeprefix("backbone.")


def _share(run: Run, prefix: str, whole: str, layer: str) -> dict[int, float]:
    values = run.series.get(prefix + layer, {})
    if not whole:
        return values
    nominal = run.series.get(whole + layer, {})
    return {step: value / nominal[step] for step, value in values.items() if nominal.get(step)}


def _mode(layer: str) -> str:
    return layer.split("/", 1)[1] if "/" in layer else ""


def _layers(runs: Sequence[Run], prefix: str) -> list[str]:
    """Layers in the order of their names, numbers in them by size."""
    layers = {key.removeprefix(prefix) for run in runs for key in run.series if key.startswith(prefix)}
    return sorted(layers, key=lambda layer: [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in layer.split(".")])


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(template="plotly_white", height=height, margin={"l": 60, "r": 20, "t": 50, "b": 50})
    figure.update_layout(legend={"orientation": "h", "y": -0.12, "yanchor": "top"})
    return figure
