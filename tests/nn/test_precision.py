"""Mixed precision and memory layouts must not change what is binary."""

import copy

import pytest
import torch
from torch import nn

from bnnlight.nn import CP, BinaryConv2d, BinaryLinear, Dense, Holistic, Matrix, Rotated, TensorTrain, Tucker, factorize

LATENTS = {
    "dense": Dense,
    "matrix": lambda w: Matrix(w, start="svd"),
    "tucker": lambda w: Tucker(w, 0.5),
    "holistic": lambda w: Holistic(w, 0.5),
    "cp": CP,
    "tensor train": TensorTrain,
    "rotated": Rotated,
}
each_latent = pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


def signs_out_of(layer, x):
    """B as the layer uses it: the gradient of its outputs with respect to sign(x), one output at a time."""
    x = x.detach().requires_grad_()
    return torch.stack([torch.autograd.grad(layer(x)[0, o].float().sum(), x)[0] for o in range(8)])


@each_latent
@pytest.mark.parametrize("training", [True, False])
def test_autocast_gives_the_same_signs(latent, training):
    layer = BinaryConv2d(8, 8, 3, latent=latent, scale="none", activation_gradient="identity").train(training)
    x = torch.randn(1, 8, 3, 3)  # the kernel's size, so that each output is one sum over B
    full = signs_out_of(layer, x)
    assert torch.equal(full[:, 0], torch.where(layer.latent() >= 0, 1.0, -1.0))
    with autocast():
        assert torch.equal(signs_out_of(layer, x), full)
        assert torch.equal(layer.binary_weight(), full[:, 0])


def test_rebuilding_in_bfloat16_would_give_other_signs():
    # what the test above protects from: at this size it is not a matter of luck
    latent = Matrix(torch.randn(64, 32, 3, 3), start="svd")
    with torch.no_grad(), autocast():
        rounded = latent().float()
    assert ((rounded >= 0) != (latent() >= 0)).sum() > 10


@each_latent
@pytest.mark.parametrize("scale", ["channel", "analytic", "none"])
def test_autocast_outputs_are_close(latent, scale):
    layer = BinaryConv2d(8, 8, 3, padding=1, latent=latent, scale=scale, bias=True)
    x = torch.randn(2, 8, 6, 6)
    full = layer(x)
    with autocast():
        half = layer(x)
    # sums of 72 signs are exact in bfloat16; α costs one rounding of 2⁻⁹, its product another
    torch.testing.assert_close(half.float(), full, rtol=1e-2, atol=0 if scale == "none" else 1e-3)
    assert torch.isfinite(half).all()


def test_autocast_trains_in_full_precision_parameters():
    model = nn.Sequential(BinaryConv2d(4, 4, 3, latent=Tucker), nn.Flatten(), BinaryLinear(16, 2, latent=Matrix))
    with autocast():
        loss = model(torch.randn(3, 4, 4, 4)).square().mean()
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.abs().sum() > 0 for p in model.parameters())


@each_latent
def test_channels_last_agrees(latent):
    model = nn.Sequential(*(BinaryConv2d(4, 4, 3, padding=1, latent=Dense) for _ in range(3)))
    factorize(model, latent)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 6, 5)
    y, y_other = model(x), other(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y_other, y)
    y.square().sum().backward()
    y_other.square().sum().backward()
    for (name, one), twin in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(twin.grad, one.grad, rtol=1e-4, atol=1e-4, msg=name)
