"""Draws the figures in which runs are compared, with plotly: panels, which a page sets side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from bnnlight.tracking.layer_figures import heat_maps, lines_of_modes, over_time_and_layers
from bnnlight.tracking.panels import MAX_POINTS, Panel, colors_of, curve, rounded, styled, thinned
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
    "val/nme": "normalized mean error, validation",
}
_AS_THEY_ARE = ("loss", "nme")
_PROCESSOR_TIME = "time/processor"


@dataclass(frozen=True)
class Section:
    """Panels about one thing: a title, a sentence, the panels."""

    title: str
    text: str
    panels: list[Panel]


def all_sections(runs: Sequence[Run], names: Sequence[str]) -> Iterator[Section]:
    """Every figure for which the runs have data.

    Args:
        runs: to compare.
        names: one label a run.
    """
    keys = {key for run in runs for key in run.series}
    if keys & _CURVES.keys():
        text = "The training loss is that of single batches; the training accuracy is the epoch's mean."
        yield Section("Learning curves", text, learning_curves(runs, names))
    if any(_by_processor_time(run) for run in runs):
        text = "Accuracy of validations against the seconds of processor time since training began."
        yield Section("Accuracy by processor time", text, time_curves(runs, names))
    if any(key.startswith("bnn/flip_rate/") for key in keys):
        text = (
            "Share of a layer's binary weights that changed sign since the previous look; layers from the input down."
        )
        yield Section("Flip rates", text, heat_maps(runs, names, "bnn/flip_rate/"))
    for prefix, whole, title, text in (
        ("bnn/rank_effective/", "bnn/rank_nominal/", "Ranks",
         "Effective rank of each mode's unfolding of the latent weight, exp(entropy of the normalized singular "
         "values), as a share of its nominal rank: over time as the layers' mean, and by layer at the last look."),
        ("bnn/alpha_mean/", "", "α",
         "Mean scaling factor of each layer: their mean over time, and by layer at the end."),
        ("bnn/dead/", "", "Dead channels",
         "Share of channels whose binary activation never changed in a look's batches."),
        ("bnn/cut/", "", "Cut gradients", "Share of activations beyond ±1, where the clipped gradient is zero."),
        ("bnn/update_rank/", "", "Rank of updates",
         "Effective rank of the change of a latent weight in one optimizer step."),
        ("bnn/update_follows/", "", "Updates and gradients",
         "Share of latent weights that one optimizer step moves against their gradient; 1 for a step by its signs."),
    ):  # fmt: skip
        if any(key.startswith(prefix) for key in keys):
            lines = lines_of_modes(runs, prefix)
            shown = f"{text} Lines: {lines}." if lines else text
            yield Section(title, shown, over_time_and_layers(runs, names, prefix, whole))


def learning_curves(runs: Sequence[Run], names: Sequence[str]) -> list[Panel]:
    """Losses and accuracies against the step, one colour a run.

    Losses of different tasks have nothing to do with each other: each task's have a panel of their own.
    """
    points = [{key: list(run.series[key].items()) for key in _CURVES if run.series.get(key)} for run in runs]
    tasks = [str(run.config.get("model.class_path", "")).rsplit(".", 1)[-1] for run in runs]
    return _curves(points, names, "step", tasks)


def time_curves(runs: Sequence[Run], names: Sequence[str]) -> list[Panel]:
    """Accuracies of validations, %, against the processor seconds that they came after, one colour a run."""
    return _curves([_by_processor_time(run) for run in runs], names, "processor seconds", [""] * len(runs))


def _curves(
    points: Sequence[dict[str, list[tuple[float, float]]]], names: Sequence[str], x_title: str, tasks: Sequence[str]
) -> list[Panel]:
    """Of each run's losses and accuracies, (x, value): one panel a key."""
    panels = []
    colors = colors_of(len(names))
    for key, title in _CURVES.items():
        with_key = [number for number, of_run in enumerate(points) if key in of_run]
        by_task: dict[str, list[int]] = {}
        for number in with_key:
            by_task.setdefault(tasks[number] if "loss" in key else "", []).append(number)
        for task, numbers in by_task.items():
            figure = go.Figure()
            for number in numbers:
                x, values = thinned(points[number][key], MAX_POINTS // len(numbers))
                y = [rounded(value if key.endswith(_AS_THEY_ARE) else 100 * value) for value in values]
                figure.add_trace(curve(x, y, names[number], number, {"color": colors[number]}))
            figure.update_xaxes(title_text=x_title)
            figure.update_yaxes(title_text=key.split("/")[-1] if key.endswith(_AS_THEY_ARE) else "%")
            label = f"{title}: {task}" if len(by_task) > 1 and task else title
            panels.append(Panel(label, styled(figure, 300)))
    return panels


def _by_processor_time(run: Run) -> dict[str, list[tuple[float, float]]]:
    """Of each accuracy of validations: (processor seconds, value), where both were logged."""
    seconds = run.series.get(_PROCESSOR_TIME, {})
    curves = {
        key: [(seconds[step], value) for step, value in run.series.get(key, {}).items() if step in seconds]
        for key in _CURVES
        if key.startswith("val/") and not key.endswith(_AS_THEY_ARE)
    }
    return {key: points for key, points in curves.items() if points}
