"""The view of a W&B project in which its runs are compared: sections and panels.

It is made of `wandb-workspaces`' own objects, so that what is shown by :func:`as_record` is what is saved. Nothing here
reaches the network. Import this module by its own name: `bnnlight.tracking` leaves it out, since it loads wandb.

Add your own panel: log a key, and name it in :func:`sections`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from bnnlight.tracking.fragments import STEP_KEY
from bnnlight.tracking.keys import RENAMED

LATENT = "model.init_args.backbone.init_args.latent"
RANK = f"{LATENT}.init_args.rank"
LEARNING_RATE = "model.init_args.optimizer.init_args.lr"
SEED = "seed_everything"
"""Places in a run's config, as `fit` hands it to the loggers."""

RESULTS = ("val/acc1", "val/pckh", "test/acc1", "test/pckh")
"""Columns beside each run's name, behind those of its config."""

MAX_RUNS_BY_LAYER = 3
"""Runs in a panel with one line for each layer: more of them cannot be told apart."""


def workspace(project: str, entity: str | None = None, name: str = "bnnlight") -> ws.Workspace:
    """The view, ready to be saved.

    Args:
        project: whose runs it shows.
        entity: user or team that owns the project; None leaves it open, which does to look at the view.
        name: of the view, in the project's list of saved views.

    Raises:
        ValueError: W&B does not take the name.
    """
    try:
        return ws.Workspace(
            entity=entity or "",
            project=project,
            name=name,
            sections=sections(),
            settings=ws.WorkspaceSettings(x_axis=STEP_KEY, max_runs=20),
            runset_settings=ws.RunsetSettings(pinned_columns=_columns()),
        )
    except ValueError as error:  # pydantic's, of several lines; the name is all that a user can get wrong
        text = f"W&B accepts no emojis and no symbols such as + or = in the name of a view: {name!r}"
        raise ValueError(text) from error


def sections() -> list[ws.Section]:
    """The view from top to bottom. A panel without data in a project stays empty."""
    return [
        _section("Results", _results(), is_open=True),
        _section("Losses", _losses(), is_open=True),
        _section("Flip rates", _flip_rates(), is_open=True),
        _section("Ranks", _ranks()),
        _section("α", [_layers(f"α, {what}", f"alpha_{key}") for key, what in _ALPHA.items()]),
        _section("Activations", [_layers(what, key) for key, what in _ACTIVATIONS.items()]),
        _section("Updates", _updates()),
        _section("Speed", _speed()),
        _section("Pictures", [_pictures("val/pictures"), _pictures("test/pictures")]),
        _section("Comparison", _comparison()),
    ]


def as_record(part: Any) -> Any:
    """A view, or a part of one, as plain data for JSON: fields that are set, by the names of `wandb-workspaces`.

    What differs from call to call, such as the panels' random ids, is left out.
    """
    if isinstance(part, list | tuple):
        return [as_record(item) for item in part]
    if not dataclasses.is_dataclass(part):
        return part
    fields = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if not f.name.startswith("_")}
    # the app lays panels out by the section's columns, and does not look at their own places
    fields.pop("layout", None)
    unset: tuple[Any, ...] = (None, "", [], {}, (None, None))
    return {"type": type(part).__name__} | {k: as_record(v) for k, v in fields.items() if v not in unset}


_CURVES = {
    "val/acc1": "Validation accuracy",
    "val/acc5": "Validation accuracy, top 5",
    "train/acc": "Training accuracy",
    "val/pckh": "Validation PCKh@0.5",
    "val/pckh01": "Validation PCKh@0.1",
    "val/pck": "Validation PCK@0.2",
    "val/pck_box": "Validation PCK@0.2 of the box",
    "val/ap": "Validation AP by OKS",
    "val/nme": "Validation NME",
}
_TESTED = {
    "test/acc1": "Test accuracy",
    "test/pckh": "Test PCKh@0.5",
    "test/pck": "Test PCK@0.2",
    "test/pck_box": "Test PCK@0.2 of the box",
    "test/ap": "Test AP by OKS",
    "test/nme": "Test NME",
}
_RANKS = {"effective": "Effective rank", "stable": "Stable rank", "energy": "Rank by energy", "nominal": "Nominal rank"}
_MODES = {r"mode\d": "the weight's unfoldings", r"factor\w+": "the factors"}
_MODES_APART = {
    "mode0": "the weight over output channels",
    "mode1": "the weight over input channels",
    "mode[2-9]": "the weight over the kernel",
    r"factor\w+": "the factors",
}
_ALPHA = {
    "mean": "mean",
    "std": "standard deviation",
    "min": "smallest",
    "max": "largest",
    "negative": "share of negative ones",
}
_ACTIVATIONS = {
    "positive": "Share of activations that are +1",
    "dead": "Share of channels with one sign only",
    "cut": "Share of activations without a gradient",
}

_UPDATES = {
    "update_rank": "Effective rank of a step's change",
    "update_follows": "Share of weights that a step moves against their gradient",
}


def _columns() -> list[str]:
    config = (SEED, f"{LATENT}.class_path", RANK, LEARNING_RATE)
    # W&B keeps each entry of a config under "value", and what is nested in it behind that
    return [
        "run:displayName",
        *(f"config:{top}.value{dot}{rest}" for top, dot, rest in (path.partition(".") for path in config)),
        *(f"summary:{key}" for key in RESULTS),
    ]


def _section(name: str, panels: list[Any], is_open: bool = False) -> ws.Section:
    rows = -(-len(panels) // 3)
    return ws.Section(
        name=name,
        panels=panels,
        is_open=is_open,
        layout_settings=ws.SectionLayoutSettings(columns=3, rows=rows),
        # a section's axis goes before the view's
        panel_settings=ws.SectionPanelSettings(x_axis=STEP_KEY),
    )


def _line(title: str, key: str, **options: Any) -> wr.LinePlot:
    # runs of earlier versions beside those of today
    keys = [key, *(old for old, new in RENAMED.items() if new == key)]
    return wr.LinePlot(title=title, x=STEP_KEY, y=keys, title_x="optimizer steps", **options)


def _lines(title: str, pattern: str, **options: Any) -> wr.LinePlot:
    return wr.LinePlot(title=title, x=STEP_KEY, metric_regex=pattern, title_x="optimizer steps", **options)


def _layers(title: str, key: str, end: str = "", **options: Any) -> wr.LinePlot:
    """``bnn/KEY/LAYER`` of all layers, or ``bnn/KEY/LAYER/END``."""
    return _lines(f"{title}, by layer", f"^bnn/{key}/.+{end}$", max_runs_to_show=MAX_RUNS_BY_LAYER, **options)


def _results() -> list[Any]:
    return [
        *(_line(title, key) for key, title in _CURVES.items()),
        # of the best checkpoint, which is the one that `fit` tests
        *(wr.BarPlot(title=f"{title} of the best checkpoint", metrics=[key]) for key, title in _TESTED.items()),
        *(
            wr.ScalarChart(title=f"{_CURVES[key]} at the end, highest of all runs", metric=key, groupby_aggfunc="max")
            for key in ("val/acc1", "val/pckh")
        ),
        _line("Stage: 0 real, 1 binary activations, 2 binary", "bnn/stage"),
        _lines("AP by OKS, by threshold and size", r"^val/ap(50|75|_m|_l)$"),
        _lines("AR by OKS", r"^val/ar(50|75|_m|_l)?$"),
        _lines("Accuracy at the end of each stage", r"^stage/\w+/val/(acc|pck|ap).*$"),
    ]


def _losses() -> list[Any]:
    return [
        _line("Training loss", "train/loss"),
        _line("Validation loss", "val/loss"),
        _line("Training loss against the labels", "train/loss_task"),
        _line("Training loss against the teacher", "train/loss_teacher"),
        _line("Distance of the attention maps from the teacher's", "train/loss_attention"),
        _line("Distance of the feature maps from the teacher's", "train/loss_features"),
        _lines("Validation loss at the end of each stage", r"^stage/\w+/val/loss$"),
        _line("Batches skipped, not finite", "train/skipped_batches"),
        _line("Sharpness of the sign's gradient", "bnn/sharpness", log_y=True),
        _line("Share of weights and activations that are binary", "bnn/binary_share"),
        _line("Signs frozen", "bnn/signs_frozen"),
        _line("Quantile at which weights are clamped", "bnn/tau"),
    ]


def _flip_rates() -> list[Any]:
    # by orders of magnitude: the rate falls by hundreds while a network learns
    return [
        _line("Flip rate of all weights", "bnn/flip_rate_mean", log_y=True),
        _layers("Flip rate", "flip_rate", log_y=True),
    ]


def _ranks() -> list[Any]:
    return [
        _layers(f"{title} of {of}", f"rank_{key}", f"/{end}")
        for key, title in _RANKS.items()
        # the kind that tells most one mode a panel, the others all together
        for end, of in (_MODES_APART if key == "effective" else _MODES).items()
    ]


def _updates() -> list[Any]:
    watched = [
        panel
        for key, title in _UPDATES.items()
        for panel in (_line(f"{title}, mean of the layers", f"bnn/{key}_mean"), _layers(title, key))
    ]
    return [_line("Share of steps that the optimizer's ε shortens", "bnn/damped"), *watched]


def _speed() -> list[Any]:
    return [
        _line("Seconds a step", "time/step"),
        _line("Seconds a step waits for data", "time/data"),
        _line("Processor seconds so far", "time/processor"),
        _line("Peak memory", "mem/peak"),
        _line("Pictures left out, unreadable", "data/bad_images"),
        # of kinds of parameters, and of each layer's factors, which follow them in proportion
        _lines("Learning rates", "^lr-[^/]+(/[^/]+){0,2}$", max_runs_to_show=MAX_RUNS_BY_LAYER, log_y=True),
        _lines("Learning rates of factors", "^lr-[^/]+(/[^/]+){3,}$", max_runs_to_show=MAX_RUNS_BY_LAYER, log_y=True),
    ]


def _pictures(key: str) -> wr.MediaBrowser:
    return wr.MediaBrowser(title=key, media_keys=[key], mode="grid", grid_x_axis="step", grid_y_axis="run")


def _comparison() -> list[Any]:
    return [
        wr.RunComparer(diff_only="split"),
        wr.ParameterImportancePlot(with_respect_to="val/acc1"),
        wr.ParameterImportancePlot(with_respect_to="val/pckh"),
        _parallel("val/acc1"),
        _parallel("val/pckh"),
    ]


def _parallel(result: str) -> wr.ParallelCoordinatesPlot:
    axes = [
        (wr.Config(f"{LATENT}.class_path"), "latent", False),
        (wr.Config(RANK), "rank", False),
        (wr.Config(LEARNING_RATE), "learning rate", True),
        (wr.Config(SEED), "seed", False),
        (wr.SummaryMetric(result), result, False),
    ]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=m, display_name=n, log=log) for m, n, log in axes]
    return wr.ParallelCoordinatesPlot(title=f"Latent, rank, learning rate and seed against {result}", columns=columns)
