"""Means of runs over seeds, and whether two methods differ: with how much doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: of the values.
        half: half the interval's width; None for a single value, of whose spread nothing is known.
        count: of the values.
    """

    mean: float
    half: float | None
    count: int

    @property
    def excludes_zero(self) -> bool | None:
        """Whether zero lies outside; None where there is no interval."""
        return None if self.half is None else abs(self.mean) > self.half


@dataclass(frozen=True)
class Difference(Interval):
    """A mean of differences paired by seed.

    Attributes:
        by_seed: seed → difference.
        p: of the two-sided paired t-test; None for a single pair.
    """

    by_seed: dict[int, float]
    p: float | None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean and Student's confidence interval: mean ± t((1 + level) / 2, n - 1) · s / √n.

    Args:
        values: independent ones, at least one.
        level: share of such intervals that hold the true mean, if the values are spread normally.
    """
    half = None
    if len(values) > 1:
        half = float(student.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values), half, len(values))


def paired_difference(
    values: Mapping[int, float], others: Mapping[int, float], level: float = 0.95
) -> Difference | None:
    """values - others, pair by pair, with interval and p of the paired t-test.

    Where all differences are the same, the test knows no spread: p is then 0, or 1 where they are all zero.

    Args:
        values: seed → figure.
        others: seed → figure; seeds that only one of the two has are left out.
        level: of the interval.

    Returns:
        None where no seed is in both.
    """
    by_seed = {seed: values[seed] - others[seed] for seed in values if seed in others}
    if not by_seed:
        return None
    interval, p = mean_interval(list(by_seed.values()), level), None
    if interval.half is not None:
        error = stdev(by_seed.values()) / math.sqrt(len(by_seed))
        if error:
            p = 2 * float(student.sf(abs(interval.mean) / error, len(by_seed) - 1))
        else:
            p = 0.0 if interval.mean else 1.0
    return Difference(interval.mean, interval.half, interval.count, by_seed, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, adjusted so that those below a level are wrong in any with at most that chance.

    The i-th smallest of m, from 0, is multiplied by m - i, and is at least those before it and at most 1 (Holm 1979,
    https://www.jstor.org/stable/4615733).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
