"""NME against loops over faces and joints."""

import math

import pytest
import torch

from bnnlight.metrics import NME


def test_mean_over_annotated_joints_of_all_batches():
    torch.manual_seed(0)
    measure, errors = NME(), []
    for num in (3, 2):
        truth, annotated = 50 * torch.rand(num, 4, 2), torch.rand(num, 4) < 0.7
        found, length = truth + torch.randn(num, 4, 2), 10 + 10 * torch.rand(num)
        # no reference, and a joint that is annotated nowhere and far off
        length[0] = math.nan if num == 3 else 0.0
        found[~annotated] = math.nan
        measure.update(found, truth, annotated, length)
        for i in range(1, num):
            for j in range(4):
                if annotated[i, j]:
                    errors.append(math.dist(found[i, j].tolist(), truth[i, j].tolist()) / length[i].item())
    assert measure.compute().item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert measure.totals()[1] == len(errors) > 5


def test_nothing_annotated_is_no_number_and_shapes_are_checked():
    measure = NME()
    zeros = torch.zeros(2, 3, 2)
    measure.update(zeros, zeros, torch.zeros(2, 3, dtype=torch.bool), torch.ones(2))
    assert measure.compute().isnan()
    with pytest.raises(ValueError, match="expected"):
        measure.update(zeros, zeros, torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 1))
