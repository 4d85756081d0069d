"""Chooses a method's value of the searched option by the search runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from bnnlight.matrix.plan.rows import Search


@dataclass(frozen=True)
class Choice:
    """What a method's search says so far.

    Attributes:
        value: the chosen one; None while search runs are missing, and where all diverged.
        means: value → mean figure over the search seeds, of the values of which all runs are done.
        tied: values with the best mean, where it is more than one; the smallest of them is chosen.
        diverged: values with which a run's numbers or its figure did not stay finite; they are never chosen.
        edge: whether the chosen value is the smallest or largest that was tried, so that a better one may lie beyond.
        num_done: of the search runs.
        num_runs: of the search in all.
    """

    value: float | None
    means: dict[float, float]
    tied: tuple[float, ...]
    diverged: tuple[float, ...]
    edge: bool
    num_done: int
    num_runs: int


def choose(search: Search, direction: str, figures: Mapping[tuple[float, int], float | None]) -> Choice:
    """The value with the best mean over the search seeds; a single value is taken unsearched.

    Args:
        search: values and seeds.
        direction: ``max`` or ``min``.
        figures: (value, seed) → the best figure on held-out data, of the search runs that are done; None where it
            diverged.
    """
    if len(search.values) == 1:
        return Choice(search.values[0], {}, (), (), False, 0, 0)
    pairs = [(value, seed) for value in search.values for seed in search.seeds]
    done = [pair for pair in pairs if pair in figures]
    failed = {pair for pair, figure in figures.items() if figure is None or not math.isfinite(figure)}
    diverged = tuple(v for v in search.values if any((v, seed) in failed for seed in search.seeds))
    means = {
        value: fmean(figures[value, seed] for seed in search.seeds)
        for value in search.values
        if value not in diverged and all((value, seed) in figures for seed in search.seeds)
    }
    if len(done) < len(pairs) or not means:
        return Choice(None, means, (), diverged, False, len(done), len(pairs))
    best = (max if direction == "max" else min)(means.values())
    tied = tuple(value for value in search.values if means.get(value) == best)
    edge = tied[0] in (search.values[0], search.values[-1])
    return Choice(tied[0], means, tied if len(tied) > 1 else (), diverged, edge, len(done), len(pairs))
