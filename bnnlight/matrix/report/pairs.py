"""Differences of rows: from the baseline, and in a matrix with optimizers from one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from bnnlight.matrix.plan.plan import Plan
from bnnlight.matrix.report.statistics import Difference, holm, paired_difference

Record = dict[str, Any]
BySeed = Mapping[int, float]
Pair = tuple[str, str]


def compare(by_seed: Mapping[str, BySeed], pairs: Sequence[Pair]) -> dict[Pair, Record]:
    """The paired differences of some rows; their p-values are adjusted by Holm over all of them.

    Args:
        by_seed: row → seed → figure.
        pairs: of rows; the second's figures are taken from the first's.

    Returns:
        Pair → ``by_seed``, ``mean``, ``half_interval``, ``excludes_zero``, ``p`` and ``p_holm``, of the pairs that have
        a seed in common.
    """
    differences = {pair: paired_difference(by_seed[pair[0]], by_seed[pair[1]]) for pair in pairs}
    tested = {pair: one.p for pair, one in differences.items() if one and one.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {pair: _as_record(one, adjusted.get(pair)) for pair, one in differences.items() if one}


def _as_record(difference: Difference, adjusted: float | None) -> Record:
    return {
        "by_seed": difference.by_seed,
        "mean": difference.mean,
        "half_interval": difference.half,
        "excludes_zero": difference.excludes_zero,
        "p": difference.p,
        "p_holm": adjusted,
    }


def between_optimizers(plan: Plan) -> list[Pair]:
    """Of each method all pairs of its rows; the earlier one's figures are taken from the later one's.

    An optimizer that takes another one's rate is a variant of it, and compared with that one alone: a correction over
    all pairs of variants, which nobody asks about, would leave nothing that differs.
    """
    pairs = []
    for base in dict.fromkeys(method.base for method in plan.methods.values() if method.optimizer):
        rows = [(method.optimizer, name) for name, method in plan.methods.items() if method.base == base]
        own = [name for optimizer, name in rows if optimizer.rate_of == optimizer.name]
        pairs += [(later, earlier) for earlier, later in combinations(own, 2)]
        by_name = {optimizer.name: name for optimizer, name in rows}
        pairs += [(name, by_name[optimizer.rate_of]) for optimizer, name in rows if name not in own]
    return pairs


def between_methods(plan: Plan) -> list[Pair]:
    """With each optimizer its rows, the baseline's method taken from them.

    Those of the baseline's own optimizer are left out, as they are the differences from the baseline.
    """
    baseline = plan.methods[plan.baseline]
    pairs = []
    for optimizer in plan.optimizers:
        of = optimizer.row(baseline.base)
        if optimizer is baseline.optimizer or of not in plan.methods:
            continue
        pairs += [(n, of) for n, method in plan.methods.items() if method.optimizer is optimizer and n != of]
    return pairs
