"""Adaptive Wing loss against its formula as the paper has it, written out pixel by pixel in float64."""

import math

import pytest
import torch

from bnnlight.tasks.heatmap_losses import adaptive_wing, heatmap_loss, loss_weights

OMEGA, THETA, EPSILON, ALPHA = 14, 0.5, 1, 2.1


def by_hand(value, target):
    difference, power = abs(target - value), ALPHA - target
    if difference < THETA:
        return OMEGA * math.log(1 + (difference / EPSILON) ** power)
    fraction = 1 / (1 + (THETA / EPSILON) ** power)
    slope = OMEGA * fraction * power * (THETA / EPSILON) ** (power - 1) * (1 / EPSILON)
    return slope * difference - (THETA * slope - OMEGA * math.log(1 + (THETA / EPSILON) ** power))


def weight_by_hand(target, y, x):
    near = [
        target[v][u]
        for v in range(max(0, y - 1), min(len(target), y + 2))
        for u in range(max(0, x - 1), min(len(target[0]), x + 2))
    ]
    return 11 if max(near) >= 0.2 else 1


def test_loss_of_whole_maps_by_hand():
    torch.manual_seed(0)
    maps = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    # most of the pixels are background
    targets = torch.rand(2, 3, 4, 5, dtype=torch.float64) ** 8
    weight = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    total, weights = 0.0, set()
    for n, j in weight.nonzero().tolist():
        target = targets[n, j].tolist()
        for stack in range(2):
            for y in range(4):
                for x in range(5):
                    factor = weight_by_hand(target, y, x)
                    weights.add(factor)
                    total += factor * by_hand(maps[n, stack, j, y, x].item(), target[y][x]) / 20
    assert weights == {1, 11}
    assert heatmap_loss(maps, targets, weight, "awing").item() == pytest.approx(total / 4, rel=1e-12)


def test_weights_widen_by_a_pixel_at_the_border_too():
    targets = torch.zeros(1, 4, 5)
    targets[0, 0, 0], targets[0, 3, 4] = 0.2, 0.19
    assert (loss_weights(targets)[0] == 11).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_smooth_at_theta_and_flat_at_the_target(target):
    target = torch.tensor(target, dtype=torch.float64)
    for sign in (-1, 1):
        place = target + sign * THETA
        below, above = ((place + side * sign * 1e-9).requires_grad_() for side in (-1, 1))
        values = [adaptive_wing(maps, target) for maps in (below, above)]
        slopes = [torch.autograd.grad(value, maps)[0] for value, maps in zip(values, (below, above), strict=True)]
        assert values[0].item() == pytest.approx(values[1].item(), abs=1e-6)
        assert slopes[0].item() == pytest.approx(slopes[1].item(), abs=1e-6)
        assert sign * slopes[0] > 1
    at = target.clone().requires_grad_()
    value = adaptive_wing(at, target)
    assert value.item() == 0
    assert torch.autograd.grad(value, at)[0] == 0


def test_gradient_against_differences():
    torch.manual_seed(0)
    targets = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    offsets = torch.randn(2, 2, 3, 6, 6, dtype=torch.float64)
    # away from the target itself, where the second derivative has no end
    maps = (targets.unsqueeze(1) + offsets.sign() * (offsets.abs() + 0.01)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: heatmap_loss(m, targets, torch.ones(2, 3).double(), "awing"), (maps,))


def test_a_teachers_maps_outside_of_0_and_1_give_finite_gradients():
    maps = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0], requires_grad=True)
    taught = torch.tensor([-3.0, 1.2, 2.5, 2.0, 3.0, 3.0])
    adaptive_wing(maps, taught).sum().backward()
    assert maps.grad.isfinite().all()
    # beyond the end of the targets' range the end is what is learned
    assert maps.grad[4:].tolist() == pytest.approx(maps.grad[4:].abs().tolist())
