"""Layers that are binary in part, against the formula in float64, and their masks."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from bnnlight.nn import BinaryConv2d, BinaryLinear
from bnnlight.nn.compute.relaxed import Mixed


def mixed(*seed, share=0.4, turn=0.0, **options):
    made = Mixed(*(seed or (0, 3)), **options)
    made.share, made.turn = share, turn
    return made


def by_hand(x, weight, alpha, masks):
    """α ⊙ (q(X) W) with the masked entries as signs; x and weight as matrices, float64."""
    x, weight = (np.asarray(t, np.float64) for t in (x, weight))
    of_weight, of_x = masks
    mean = np.abs(weight).mean(1, keepdims=True)
    weight = np.where(of_weight, np.where(weight >= 0, 1.0, -1.0), weight / mean)
    x = np.where(of_x, np.where(x >= 0, 1.0, -1.0), np.clip(x, -1, 1))
    return np.asarray(alpha, np.float64) * (x @ weight.T)


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_linear_by_hand(share):
    layer = BinaryLinear(40, 5)
    layer.stage = mixed(share=share)
    x = 1.5 * torch.randn(7, 40)
    masks = [layer.stage.mask(shape, x.device, w).numpy() for shape, w in (((5, 40), True), ((40,), False))]
    assert all((mask.mean() == share) if share in (0, 1) else 0 < mask.mean() < 1 for mask in masks)
    expected = by_hand(x, layer.weight.detach(), layer.alpha().detach(), masks)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding_value", [0, -1])
@pytest.mark.parametrize("slope", [None, 0.25])
def test_convolution_by_patches(padding_value, slope):
    layer = BinaryConv2d(4, 6, 3, padding=1, padding_value=padding_value)
    layer.stage = mixed()
    x = 1.5 * torch.randn(2, 4, 5, 5)
    of_x = layer.stage.mask((4, 5, 5), x.device, False).numpy()
    inside = np.where(of_x, np.where(x >= 0, 1.0, -1.0), np.clip(x.double().numpy(), -1, 1))
    padded = np.pad(inside, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=padding_value)
    weight = layer.weight.detach().double().numpy()
    mean = np.abs(weight).mean((1, 2, 3), keepdims=True)
    filters = np.where(layer.stage.mask((6, 4, 3, 3), x.device), np.where(weight >= 0, 1.0, -1.0), weight / mean)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, filters) * layer.alpha().detach().double().numpy()[:, None, None]
    given = None if slope is None else torch.full((1,), slope)
    expected = expected if slope is None else np.where(expected > 0, expected, slope * expected)
    np.testing.assert_allclose(layer(x, given).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("straight_through", [True, False])
def test_gradients_of_masked_entries(straight_through):
    layer = BinaryLinear(30, 4, activation_gradient="polynomial", weight_gradient="identity")
    layer.stage = mixed(straight_through=straight_through)
    x = (1.5 * torch.randn(6, 30)).requires_grad_()
    of_weight, of_x = layer.stage.mask((4, 30), x.device), layer.stage.mask((30,), x.device, False)
    layer(x).square().sum().backward()
    outgoing = 2 * layer(x).detach().double() * layer.alpha().detach().double()
    to_x = outgoing @ torch.where(of_weight, layer.weight.sign(), relative(layer.weight)).detach().double()
    inside = x.detach().double()
    polynomial = (2 - 2 * inside.abs()).clamp_min(0) * float(straight_through)
    expected = to_x * torch.where(of_x, polynomial, (inside.abs() <= 1).double())
    torch.testing.assert_close(x.grad.double(), expected, rtol=1e-4, atol=1e-5)
    (gradient,) = (p.grad for p in layer.latent.parameters())
    # that of masked entries through the mean of all sizes alone, unless it goes straight through
    to_weight = outgoing.T @ torch.where(of_x, inside.sign(), inside.clamp(-1, 1))
    leaf = layer.weight.detach().double().requires_grad_()
    (torch.where(of_weight, 0.0, relative(leaf)) * to_weight).sum().backward()
    expected = leaf.grad + torch.where(of_weight, to_weight, 0.0) * float(straight_through)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-5)


def relative(weight):
    return weight / weight.abs().mean(1, keepdim=True)


def test_masks_grow_and_turn():
    at = [mixed(share=share).mask((100, 200), torch.device("cpu")) for share in (0.1, 0.3, 0.8)]
    for small, large in pairwise(at):
        assert bool((small <= large).all())
    assert [mask.float().mean().item() for mask in at] == pytest.approx([0.1, 0.3, 0.8], abs=0.02)
    # a twentieth has gone out, and as many have come in; after a whole turn all are back
    later, whole = (mixed(share=0.3, turn=turn).mask((100, 200), torch.device("cpu")) for turn in (0.05, 7.0))
    assert (at[1] & ~later).float().mean().item() == pytest.approx(0.05, abs=0.01)
    assert (later & ~at[1]).float().mean().item() == pytest.approx(0.05, abs=0.01)
    assert (at[1] != whole).float().mean().item() < 1e-3


def test_masks_follow_from_the_seed_and_differ_between_layers_and_kinds():
    device = torch.device("cpu")
    one = mixed(5, 0).mask((30, 30), device)
    assert torch.equal(one, mixed(5, 0).mask((30, 30), device))
    for other in (mixed(5, 1).mask((30, 30), device), mixed(6, 0).mask((30, 30), device)):
        assert 0.3 < (one != other).float().mean() < 0.7
    assert 0.3 < (one != mixed(5, 0).mask((30, 30), device, of_weight=False)).float().mean() < 0.7


def test_no_random_numbers_of_the_training_are_drawn():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    layer = BinaryLinear(5, 3, weight=torch.ones(3, 5))
    layer.stage = mixed()
    layer(torch.ones(2, 5))
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
