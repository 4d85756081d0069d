"""Copies of metrics' states: sums, lists, and where they lie."""

import pytest
import torch
import torchmetrics
from torchmetrics import CatMetric, SumMetric

from bnnlight.guards.metric_copies import copied, put_back


@pytest.mark.parametrize(("kind", "expected"), [(SumMetric, 3.0), (CatMetric, [1.0, 2.0])])
def test_a_copy_stays_while_the_metric_goes_on(kind, expected):
    metric = kind()
    metric.update(torch.tensor([1.0, 2.0]))
    kept = copied(metric.metric_state)
    # what is put back counts on, and leaves the copy alone only where it was copied again
    for _ in range(2):
        metric.update(torch.tensor([4.0]))
        put_back(metric, copied(kept))
        metric._computed = None
        assert metric.compute().tolist() == expected


def test_what_stands_in_a_list_is_not_copied():
    # or each step of an epoch would copy all that was counted in it
    metric = CatMetric()
    metric.update(torch.tensor([1.0]))
    (value,), (kept,) = metric.metric_state["value"], copied(metric.metric_state)["value"]
    assert kept.data_ptr() == value.data_ptr()


def test_all_of_a_state_comes_to_the_device():
    state = {"sum": torch.ones(2), "parts": [torch.ones(3), [torch.ones(4)]], "count": 3}
    there = copied(state, "meta")
    assert there["sum"].is_meta and there["parts"][0].is_meta and there["parts"][1][0].is_meta
    assert [len(there["sum"]), len(there["parts"][0]), len(there["parts"][1][0]), there["count"]] == [2, 3, 4, 3]
    assert not state["sum"].is_meta


def test_a_copy_knows_no_gradient():
    assert not copied({"sum": torch.ones(2, requires_grad=True) * 2})["sum"].requires_grad


def test_a_metric_whose_state_was_put_back_has_seen_something(recwarn):
    metric, other = SumMetric(), SumMetric()
    metric.update(torch.tensor(3.0))
    put_back(other, copied(metric.metric_state))
    word = f"torchmetrics {torchmetrics.__version__} counts updates elsewhere: see bnnlight/guards/metric_copies.py"
    assert other.update_called and other.compute() == 3 and not recwarn.list, word
