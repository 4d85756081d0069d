"""Layers that are traced by `torch.compile` in one graph, forward and backward, against themselves, in float64."""

import copy

import pytest
import torch

from bnnlight.backbones import ResNet
from bnnlight.nn import (
    CP,
    Balanced,
    BinaryConv2d,
    BinaryLinear,
    BiRotated,
    Clamped,
    Dense,
    Holistic,
    LearnedPair,
    Matrix,
    Normalized,
    Rotated,
    Shifted,
    Standardized,
    TensorTrain,
    Tucker,
    factorize,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch.manual_seed(0)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def check(network, shape):
    """Output and all gradients, in train mode at first and with a batch of another size, then the output in eval."""
    network = network.double()
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager", fullgraph=True)

    def run(model, x):
        model.zero_grad()
        y = model(x)
        y.square().sum().backward()
        return [y.detach(), x.grad, *(p.grad for p in model.parameters())]

    for size in (3, 5):
        x = torch.randn(size, *shape, dtype=torch.float64)
        found, expected = (run(model, x.clone().requires_grad_()) for model in (compiled, network))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
        assert all(float(part.abs().max()) > 0 for part in expected[:2])
    with torch.no_grad():
        torch.testing.assert_close(compiled.eval()(x), network.eval()(x), rtol=1e-9, atol=1e-10)


ALIKE = [pytest.param(latent, marks=pytest.mark.slow) for latent in (Matrix, CP, TensorTrain, Rotated)]


@pytest.mark.parametrize("latent", [Dense, Tucker, Holistic, *ALIKE])
def test_latents(latent):
    layers = [BinaryConv2d(4, 6, 3, padding=1), BinaryConv2d(6, 6, 3, padding=1)]
    check(factorize(torch.nn.Sequential(*layers), latent), (4, 5, 5))


@pytest.mark.parametrize("part", [Standardized, Balanced, BiRotated, Clamped])
def test_parts_of_weights(part):
    check(BinaryConv2d(4, 6, 3, padding=1, weight_parts=[part]), (4, 5, 5))


@pytest.mark.parametrize("part", [Normalized, Shifted, LearnedPair])
@pytest.mark.parametrize("layer", [lambda **parts: BinaryConv2d(4, 6, 3, **parts), lambda **p: BinaryLinear(4, 6, **p)])
def test_parts_of_inputs(part, layer):
    made = layer(input_parts=[part])
    check(made, (4, 5, 5) if isinstance(made, BinaryConv2d) else (4,))


def test_lean_blocks_count_each_batch_once():
    """torch runs a checkpointed part twice, and its batch norms count twice unless they are kept from it."""
    plain = ResNet(blocks=[1], num_classes=3, width=0.125, stem="small", lean=True).double()
    compiled = copy.deepcopy(plain)
    run = torch.compile(compiled, backend="aot_eager")
    for size in (4, 6):
        x = torch.randn(size, 3, 8, 8, dtype=torch.float64)
        for network in (plain, run):
            network.zero_grad()
            network(x).square().sum().backward()
    assert {int(value) for name, value in compiled.state_dict().items() if name.endswith("num_batches_tracked")} == {2}
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-10)
    for found, expected in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-10)
