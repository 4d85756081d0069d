"""States of random generators and metrics, taken and put back."""

import io
import random

import numpy as np
import torch
from torch import nn
from torchmetrics import MeanMetric

from bnnlight.callbacks.run_state import (
    metric_states,
    random_states,
    restore_metric_states,
    restore_random_states,
    share_of,
)

CPU = torch.device("cpu")


def draw():
    """One of each generator."""
    return torch.rand(3).tolist(), torch.randn(1).item(), np.random.randn(3).tolist(), random.gauss(0, 1)


def test_generators_go_on_where_they_stood():
    # an odd number of normal draws leaves half a pair behind in numpy and Python
    np.random.randn(3), random.gauss(0, 1)
    file = io.BytesIO()
    torch.save(random_states(CPU), file)
    expected = [draw(), draw()]
    file.seek(0)
    restore_random_states(torch.load(file, weights_only=True), CPU)
    assert [draw(), draw()] == expected


class Measured(nn.Module):
    def __init__(self):
        super().__init__()
        self.means = nn.ModuleDict({name: MeanMetric() for name in ("epoch", "val")})


def test_metrics_under_way():
    model = Measured()
    model.means["epoch"].update(torch.tensor([1.0, 2.0, 6.0]))
    states = metric_states(model)
    assert list(states) == ["means.epoch"]
    model.means["epoch"].update(torch.tensor([100.0]))  # not part of what was taken
    other = Measured()
    restore_metric_states(other, states | {"means.gone": {"mean_value": torch.ones(())}})
    assert other.means["epoch"].compute() == 3.0
    other.means["epoch"].update(torch.tensor([7.0]))
    assert other.means["epoch"].compute() == 4.0
    assert not other.means["val"].update_called
    # what was handed over is not changed by what is measured on it
    again = Measured()
    restore_metric_states(again, states)
    assert again.means["epoch"].compute() == 3.0


def test_fewer_processes_take_over_the_counts_of_all():
    states = []
    for rank, values in enumerate(([1.0], [2.0, 3.0], [], [10.0])):
        model = Measured()
        if values:
            model.means["epoch"].update(torch.tensor(values))
        states.append({"random": rank, "metrics": metric_states(model)})
    shares = [share_of(rank, 2, states) for rank in range(2)]
    assert [share["random"] for share in shares] == [0, 1]
    totals = [0.0, 0.0]
    for share in shares:
        model = Measured()
        restore_metric_states(model, share["metrics"])
        totals[0] += model.means["epoch"].mean_value.item()
        totals[1] += model.means["epoch"].weight.item()
    assert totals == [16.0, 4.0]
    # of more processes than before, some begin with nothing
    assert share_of(5, 8, states) == {"metrics": {}}
    # and the states themselves stay as they are
    assert states[0]["metrics"]["means.epoch"]["weight"] == 1
