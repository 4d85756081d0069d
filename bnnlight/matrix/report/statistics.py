"""Statistics over seeds: means with intervals, paired differences and their p-values."""

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
        mean: of the values; NaN where one of them is not finite.
        half: half the interval's width; None for a single value, of whose spread nothing is known, and where the mean
            is not finite.
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
        p: of the two-sided paired t-test; None where there is no interval.
    """

    by_seed: dict[int, float]
    p: float | None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean and Student's confidence interval: mean ± t((1 + level) / 2, n - 1) · s / √n.

    One value that is not finite leaves no mean: that of the others would flatter a method which failed once.

    Args:
        values: independent ones, at least one.
        level: share of such intervals that hold the true mean, if the values are spread normally.
    """
    if not all(map(math.isfinite, values)):
        return Interval(math.nan, None, len(values))
    half = None
    if len(values) > 1:
        half = float(student.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values), half, len(values))


def interval_record(values: Sequence[float]) -> dict[str, float | None] | None:
    """``mean`` and ``half_interval`` of :func:`mean_interval` as plain data; None where there are no values."""
    if not values:
        return None
    interval = mean_interval(values)
    return {"mean": interval.mean, "half_interval": interval.half}


def paired_difference(values: Mapping[int, float], others: Mapping[int, float]) -> Difference | None:
    """values - others, pair by pair, with 95 % interval and p of the paired t-test.

    Where all differences are the same, the test knows no spread: p is then 0, or 1 where they are all zero.

    Args:
        values: seed → figure; where one is not finite, neither is the mean of the differences.
        others: seed → figure; seeds that only one of the two has are left out, and those whose figure here is not
            finite, which say nothing of ``values``.

    Returns:
        None where no seed is in both.
    """
    pairs = [seed for seed in values if seed in others and math.isfinite(others[seed])]
    by_seed = {seed: values[seed] - others[seed] for seed in pairs}
    if not by_seed:
        return None
    interval, p = mean_interval(list(by_seed.values())), None
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
    https://www.jstor.org/stable/4615733). A NaN is not a test: it stays, and does not count among the m.
    """
    tests = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(sorted(tests, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(tests) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
