"""How often a training step takes the products that a weight is rebuilt with, and that the gradients are right."""

import copy
from functools import partial

import pytest
import torch

from bnnlight.nn import CP, BinaryConv2d, Holistic, Matrix, TensorTrain, Tucker
from bnnlight.nn.compute import product as module
from bnnlight.nn.compute.lean import recomputed

# products forward, those of them that are computed again, and two gradients for each
PRODUCTS = {
    Matrix: (1, 0, 2),
    Tucker: (2, 1, 4),
    partial(Tucker, rank=(8, 4)): (2, 1, 4),
    Holistic: (2, 1, 4),
    CP: (1, 0, 2),
    TensorTrain: (3, 2, 6),
}
each_latent = pytest.mark.parametrize("latent", PRODUCTS, ids=lambda latent: getattr(latent, "__name__", str(latent)))
plainly = pytest.mark.parametrize("lean", [False, True], ids=["plain", "lean"])


def trained(layer, x, lean):
    y = recomputed(layer, x, layer) if lean else layer(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return y.detach()


@each_latent
@plainly
def test_of_the_products_the_last_is_taken_once(latent, lean, monkeypatch):
    layer = BinaryConv2d(8, 12, 3, latent=latent)
    counts = []
    count = module.times_transpose
    monkeypatch.setattr(module, "times_transpose", lambda *args: counts.append(1) or count(*args))
    trained(layer, torch.randn(2, 8, 5, 5), lean)
    assert len(counts) == sum(PRODUCTS[latent])


@each_latent
@plainly
def test_gradients_are_those_of_double_precision(latent, lean):
    # which is left to torch's own products, and in which the last one is computed again
    layer = BinaryConv2d(8, 12, 3, latent=latent)
    exact = copy.deepcopy(layer).double()
    x = torch.randn(2, 8, 5, 5)
    trained(layer, x, lean)
    trained(exact, x.double(), False)
    for found, expected in zip(layer.parameters(), exact.parameters(), strict=True):
        assert (found.grad - expected.grad).norm() < 1e-5 * expected.grad.norm()
