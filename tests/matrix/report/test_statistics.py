"""Intervals, paired differences and Holm's correction, by other formulas, by hand and by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from bnnlight.matrix.report.statistics import holm, mean_interval, paired_difference


def test_interval_by_hand():
    # s = 1, n = 3, and Student's table says 4.303 for two degrees of freedom
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.count == 3
    assert found.half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert mean_interval([1.0, 2.0, 3.0], level=0.9).half == pytest.approx(2.920 / math.sqrt(3), rel=1e-3)


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_interval_and_difference_are_scipys(count):
    rng = np.random.default_rng(count)
    a, b = rng.normal(1, 1, count), rng.normal(0, 1, count)
    interval = scipy.stats.ttest_1samp(a, 0).confidence_interval(0.95)
    found = mean_interval(a.tolist())
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx(tuple(interval))
    test = scipy.stats.ttest_rel(a, b)
    found = paired_difference(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.p == pytest.approx(test.pvalue)
    # the interval leaves zero out exactly where the test at 5 % says so
    assert found.excludes_zero == (test.pvalue < 0.05)


def test_only_seeds_of_both_are_paired():
    found = paired_difference({0: 1.0, 1: 5.0, 9: 100.0}, {1: 3.0, 0: 0.0, 8: -100.0})
    assert found.by_seed == {0: 1.0, 1: 2.0} and found.mean == 1.5
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_one_seed_says_nothing_of_the_spread():
    assert (mean_interval([3.0]).half, mean_interval([3.0]).excludes_zero) == (None, None)
    found = paired_difference({0: 2.0}, {0: 1.0})
    assert (found.mean, found.half, found.p, found.excludes_zero) == (1.0, None, None, None)


def test_differences_that_are_all_the_same():
    same, zero = paired_difference({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}), paired_difference({0: 2, 1: 3}, {0: 2, 1: 3})
    assert (same.half, same.p, same.excludes_zero) == (0.0, 0.0, True)
    assert (zero.half, zero.p, zero.excludes_zero) == (0.0, 1.0, False)


def test_what_is_not_finite_marks_its_own_mean_and_nothing_else():
    for wrong in (math.nan, math.inf, -math.inf):
        difference = paired_difference({0: wrong, 1: 3.0, 2: 4.0}, {0: 1.0, 1: 1.0, 2: 1.0})
        for found in (mean_interval([wrong, 1.0, 2.0]), difference):
            assert math.isnan(found.mean) and found.half is None and found.excludes_zero is None
        assert difference.p is None
        # a baseline that failed once says nothing of the others: their pairs with it are left out
        found, without = (
            paired_difference({0: 9.0, 1: 3.0, 2: 4.0}, {0: other, 1: 1.0, 2: 1.0} if other else {1: 1.0, 2: 1.0})
            for other in (wrong, None)
        )
        assert found == without and found.by_seed == {1: 2.0, 2: 3.0}
    # of two tests: 0.01 times 2, 0.04 times 1
    p = holm([math.nan, 0.01, 0.04])
    assert math.isnan(p[0]) and p[1:] == pytest.approx([0.02, 0.04])
    assert math.isnan(holm([math.nan])[0])


def test_holm_by_hand():
    # sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06 and 0.04, which is raised to the one before it
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2] and holm([]) == []


def test_holm_rejects_as_its_step_down_procedure():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = (rng.random(rng.integers(1, 8)) ** 3).tolist()
        rejected = set()
        for rank, index in enumerate(np.argsort(p)):
            if p[index] >= 0.05 / (len(p) - rank):
                break
            rejected.add(int(index))
        assert {i for i, adjusted in enumerate(holm(p)) if adjusted < 0.05} == rejected


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    inside = []
    for values in rng.normal(2.0, 3.0, (2000, 4)).tolist():
        found = mean_interval(values)
        inside.append(abs(found.mean - 2.0) <= found.half)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)  # four standard errors
