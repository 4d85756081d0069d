"""The choice of a value from search runs."""

import math

import pytest

from bnnlight.matrix.plan.rows import Search
from bnnlight.matrix.runs.choice import choose


def search(*values, seeds=(0, 1)):
    return Search("lr", values, seeds, {})


def test_the_best_mean_over_the_seeds_and_not_the_best_run():
    figures = {(1, 0): 0.2, (1, 1): 0.2, (2, 0): 0.5, (2, 1): 0.5, (3, 0): 0.9, (3, 1): 0.0}
    found = choose(search(1, 2, 3), "max", figures)
    assert (found.value, found.edge, found.tied) == (2, False, ())
    assert found.means == pytest.approx({1: 0.2, 2: 0.5, 3: 0.45})
    assert (choose(search(1, 2, 3), "min", figures).value, choose(search(1, 2, 3), "min", figures).edge) == (1, True)


@pytest.mark.parametrize("wrong", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["max", "min"])
def test_a_value_whose_figure_is_not_finite_is_never_chosen(wrong, direction):
    for place in (1, 2, 3):
        figures = {(value, seed): 0.5 for value in (1, 2, 3) for seed in (0, 1)} | {(place, 1): wrong}
        found = choose(search(1, 2, 3), direction, figures)
        assert found.diverged == (place,) and found.means == {v: 0.5 for v in (1, 2, 3) if v != place}
        assert found.value == min(found.means)


@pytest.mark.parametrize("best", [1, 3])
def test_an_optimum_at_the_edge_is_marked(best):
    figures = {(value, seed): float(value == best) for value in (1, 2, 3) for seed in (0, 1)}
    found = choose(search(1, 2, 3), "max", figures)
    assert (found.value, found.edge) == (best, True)


def test_of_a_tie_the_smallest_is_taken_and_all_are_named():
    figures = {(1, 0): 0.0, (2, 0): 0.5, (3, 0): 0.5}
    found = choose(search(1, 2, 3, seeds=(0,)), "max", figures)
    assert (found.value, found.tied, found.edge) == (2, (2, 3), False)


def test_nothing_is_chosen_before_all_runs_are_done():
    found = choose(search(1, 2), "max", {(1, 0): 0.1, (1, 1): 0.3, (2, 0): 0.9})
    assert (found.value, found.num_done, found.num_runs) == (None, 3, 4)
    assert found.means == pytest.approx({1: 0.2})


def test_a_single_value_needs_no_search():
    found = choose(search(5), "max", {})
    assert (found.value, found.edge, found.num_runs) == (5, False, 0)


def test_a_value_with_which_a_run_diverged_is_never_chosen():
    figures = {(1, 0): 0.1, (1, 1): 0.3, (2, 0): 0.9, (2, 1): None}
    found = choose(search(1, 2), "max", figures)
    assert (found.value, found.diverged, found.edge, found.num_done) == (1, (2,), True, 4)
    assert found.means == pytest.approx({1: 0.2})
    assert choose(search(1, 2), "min", figures).value == 1
    # known before the rest is done, yet nothing is chosen then
    assert choose(search(1, 2), "max", {(2, 1): None}).diverged == (2,)
    assert choose(search(1, 2), "max", {(2, 1): None}).value is None
    lost = choose(search(1, 2, seeds=(0,)), "max", {(1, 0): None, (2, 0): None})
    assert (lost.value, lost.diverged, lost.num_done) == (None, (1, 2), 2)
