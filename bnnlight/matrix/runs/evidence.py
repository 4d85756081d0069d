"""Reads from a run's log what may say why a method does better: flip rates, ranks, time of a step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, median

COLUMNS = {
    "flips_first": "flip rate, first third",
    "flips_last": "flip rate, last third",
    "rank": "effective rank",
    "cut": "inputs cut",
    "step_s": "computing a step",
}
"""What is told of a run, and what it is called."""

_FLIP_RATE = ("bnn/flip_rate_mean", "bnn/flip_rate")
"""Its key, and what earlier versions called it."""


def evidence(folder: Path) -> dict[str, float]:
    """Figures of one run, those of :data:`COLUMNS` that it logged; what was logged and is not finite is left out.

    - ``flips_first``, ``flips_last``: mean of ``bnn/flip_rate_mean`` in the first and last third of its looks.
    - ``rank``: effective rank of the latent weight's unfolding by output channels, at the last look, mean over layers.
    - ``cut``: share of the inputs of signs that get no gradient, at the last look, mean over layers.
    - ``step_s``: seconds between two steps without waiting for data, median.

    Args:
        folder: of the run, with ``metrics.jsonl``.
    """
    flips: list[float] = []
    steps: list[float] = []
    last: dict[str, float] = {}
    for line in finite_rows(folder / "metrics.jsonl"):
        flips += [line[key] for key in _FLIP_RATE if key in line]
        if "time/step" in line and "time/data" in line:
            steps.append(line["time/step"] - line["time/data"])
        last |= {key: v for key, v in line.items() if key.startswith(("bnn/rank_effective/", "bnn/cut/"))}
    ranks = [value for key, value in last.items() if key.startswith("bnn/rank_") and key.endswith("/mode0")]
    cuts = [value for key, value in last.items() if key.startswith("bnn/cut/")]
    third = max(1, len(flips) // 3)
    figures = {
        "flips_first": _mean(flips[:third]),
        "flips_last": _mean(flips[-third:]),
        "rank": _mean(ranks),
        "cut": _mean(cuts),
        "step_s": median(steps) if steps else None,
    }
    return {name: value for name, value in figures.items() if value is not None}


def validations(folder: Path, metric: str) -> list[list[float]]:
    """Processor seconds and figure of each validation of a run; none where it logged no such time.

    Args:
        folder: of the run, with ``metrics.jsonl``.
        metric: name behind ``val/``.
    """
    key = f"val/{metric}"
    rows = finite_rows(folder / "metrics.jsonl")
    return [[row["time/processor"], row[key]] for row in rows if "time/processor" in row and key in row]


def mean_evidence(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over the runs where it is there and finite."""
    runs = list(runs)
    by_name = {name: [run[name] for run in runs if math.isfinite(run.get(name, math.nan))] for name in COLUMNS}
    return {name: fmean(values) for name, values in by_name.items() if values}


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


def finite_rows(path: Path) -> Iterable[dict]:
    """Rows of a ``metrics.jsonl``, without figures that are not finite; none where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            # the last one, of a run that was killed while it wrote
            continue
        yield {key: value for key, value in row.items() if math.isfinite(value)}
