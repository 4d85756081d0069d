"""Puts runs side by side: what is compared, as plain numbers and as the columns of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnnlight.tracking.runs import Run
from bnnlight.tracking.settings import as_text, differences, settings, short_names

_SHOWN_RESULTS = 6
_SHOWN_SETTINGS = 8
_ACCURACIES = ("acc1", "pckh", "pck", "pck_box", "ap")
"""What a comparison is about, beside the keys of a task of the user's own."""


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        name: over it.
        key: of the figure or setting, in full.
        values: one a run; None where it has none.
        texts: the values as they are shown.
        is_result: a figure of the run, and no setting.
        is_folded: shown only when it is asked for.
    """

    name: str
    key: str
    values: list[Any]
    texts: list[str]
    is_result: bool
    is_folded: bool = False


def columns(runs: Sequence[Run]) -> list[Column]:
    """What stands behind the runs' names: results, then the settings in which they differ.

    Of either, the first few are shown and the others folded.
    """
    results = _results(runs)
    configs = [settings(run.config) for run in runs]
    keys = differences(configs)
    names = short_names(keys)
    # how often something was logged is no part of a method
    shown = [key for key in keys if not key.endswith((".interval", "log_every_n_steps"))][:_SHOWN_SETTINGS]
    found = []
    for place, key in enumerate(results):
        values = [run.results.get(key) for run in runs]
        texts = ["" if value is None else _result(key, value) for value in values]
        name = "processor time" if key.endswith("time/processor") else key
        found.append(Column(name, key, values, texts, True, place >= _SHOWN_RESULTS))
    for key in (*shown, *(key for key in keys if key not in shown)):
        values = [config.get(key) for config in configs]
        texts = [as_text(key, value) for value in values]
        found.append(Column(names[key], key, values, texts, False, key not in shown))
    return found


def as_record(runs: Sequence[Run], unreadable: Sequence[str], without_figures: Sequence[Run] = ()) -> dict[str, Any]:
    """All that the page shows, as plain numbers.

    Returns:
        ``runs``: for each its ``name``, ``source``, ``id``, ``starts``, ``config`` (where the runs differ),
        ``results``, ``series`` (key → ``steps``, ``values``) and ``problems``; ``config_differences``: the keys;
        ``without_figures``: name and source of runs that logged nothing; ``unreadable``: a line for each source that
        could not be read. Figures that are not finite are null.
    """
    configs = [settings(run.config) for run in runs]
    keys = differences(configs)
    return {
        "config_differences": keys,
        "runs": [
            {
                "name": run.name,
                "source": run.source,
                "id": run.run_id,
                "starts": run.num_starts,
                "config": {key: config.get(key) for key in keys},
                "results": {key: _finite(value) for key, value in run.results.items()},
                "series": {
                    key: {"steps": list(values), "values": [_finite(value) for value in values.values()]}
                    for key, values in run.series.items()
                },
                "problems": run.problems,
            }
            for run, config in zip(runs, configs, strict=True)
        ],
        "without_figures": [{"name": run.name, "source": run.source} for run in without_figures],
        "unreadable": list(unreadable),
    }


def labels(runs: Sequence[Run]) -> list[str]:
    """The runs' names, numbered where several have the same."""
    names = [run.name for run in runs]
    return [f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _results(runs: Sequence[Run]) -> list[str]:
    """Keys of the results, accuracies of the test first: they are what a comparison is about. None of single joints."""
    keys = dict.fromkeys(
        key for run in runs for key in run.results if key.split("/")[-1] in _ACCURACIES or "_" not in key.split("/")[-1]
    )

    def place(key: str) -> tuple[int, ...]:
        name = key.split("/")[-1]
        is_main = name in _ACCURACIES and not key.startswith("last")
        which = _ACCURACIES.index(name) if is_main else 0
        kind = 0 if key.startswith("test/") else 1 if key.startswith("best") else 2
        return (not is_main, "train/" in key, "loss" in key, kind, which)

    return sorted(keys, key=place)


def _result(key: str, value: float) -> str:
    if key.endswith("time/processor"):
        return f"{value:.0f} s"
    return f"{100 * value:.2f} %" if "/acc" in key or "/pck" in key else f"{value:.4f}"
