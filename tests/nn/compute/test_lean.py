"""Lean training computes things twice: results must not show it, and memory must."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.backbones import ResNet, StackedHourglass
from bnnlight.backbones.blocks import BinaryBlock, HierarchicalBlock
from bnnlight.nn import (
    CP,
    BinaryConv2d,
    BinaryLinear,
    Dense,
    Holistic,
    Matrix,
    Rotated,
    RPReLU,
    Tanh,
    TensorTrain,
    Tucker,
)
from bnnlight.nn.compute.lean import recomputed, record

LATENTS = {c.__name__: c for c in (Dense, Matrix, Tucker, Holistic, CP, TensorTrain, Rotated)}
each_latent = pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)


def a_pair(make):
    """A network that keeps everything, and the same that is lean."""
    networks = []
    for lean in (False, True):
        torch.manual_seed(0)
        networks.append(make(lean).train())
    return networks


def residual(latent=Dense, **options):
    return lambda lean: ResNet(
        (2, 1), 5, width=0.25, stem="half", latent=latent, image_size=16, lean=lean, **options
    ).to(memory_format=torch.channels_last)


def hourglass(lean):
    return StackedHourglass(3, 16, stacks=2, depth=1, latent=Tucker, lean=lean)


def steps(network, x, num=2):
    """Losses of a few steps, among whose gradients those of two batches are added up."""
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    losses = []
    for _ in range(num):
        for part in x.split(len(x) // 2):
            loss = network(part).square().mean()
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
    return losses


def assert_equal(one, other):
    for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@each_latent
@pytest.mark.parametrize("scale", ["channel", "analytic", "spatial", "none"])
def test_training_is_the_same_bit_for_bit(latent, scale):
    kept, lean = a_pair(residual(latent, scale=scale))
    x = torch.randn(8, 3, 16, 16)
    assert torch.equal(torch.stack(steps(kept, x)), torch.stack(steps(lean, x)))
    # weights, batch norms' statistics and how many batches they have counted
    assert_equal(kept, lean)


@pytest.mark.parametrize(
    "options",
    [
        {"shortcut": "block"},
        {"padding_value": 1},
        {"activation_gradient": "swish"},
        {"activation_gradient": Tanh(2.0), "weight_gradient": Tanh(0.5)},
        {"activation": RPReLU},
        {"activation": nn.Identity},
    ],
    ids=str,
)
def test_other_networks_too(options):
    kept, lean = a_pair(residual(Tucker, **options))
    x = torch.randn(8, 3, 16, 16)
    steps(kept, x), steps(lean, x)
    assert_equal(kept, lean)


def test_gradients_in_eval_mode_too():
    kept, lean = a_pair(residual(Tucker))
    x = torch.randn(4, 3, 16, 16)
    for network in (kept.eval(), lean.eval()):
        network(x).square().mean().backward()
    for a, b in zip(kept.parameters(), lean.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_hourglasses_too():
    kept, lean = a_pair(hourglass)
    x = torch.randn(4, 3, 32, 32)
    steps(kept, x), steps(lean, x)
    assert_equal(kept, lean)


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("activation", [nn.PReLU, nn.Identity])
def test_in_half_precision_too(integers, activation, monkeypatch):
    monkeypatch.setattr("bnnlight.nn.compute.binary_conv.takes_integers", lambda device, groups: integers)
    kept, lean = a_pair(residual(Tucker, activation=activation))
    x = torch.randn(8, 3, 16, 16)
    for network in (kept, lean):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(network(x), torch.arange(8) % 5)
        loss.backward()
    for a, b in zip(kept.parameters(), lean.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_backward_twice():
    _, lean = a_pair(residual(Matrix))
    loss = lean(torch.randn(4, 3, 16, 16)).square().mean()
    loss.backward(retain_graph=True)
    once = [parameter.grad.clone() for parameter in lean.parameters()]
    loss.backward()
    for a, b in zip(once, lean.parameters(), strict=True):
        torch.testing.assert_close(b.grad, 2 * a)


def test_evaluation_and_copies_are_as_ever():
    kept, lean = a_pair(residual(Tucker))
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(kept(x), lean(x))
        assert torch.equal(kept.eval()(x), copy.deepcopy(lean).eval()(x))
    assert record() is None


def test_no_convolution_and_no_weight_is_computed_twice(monkeypatch):
    counts = {"sums": 0, "latent": 0}

    class Counted(Tucker):
        def forward(self):
            counts["latent"] += 1
            return super().forward()

    original = BinaryConv2d.forward
    convolve = torch._int_mm

    def counted(a, b):
        counts["sums"] += len(a)
        return convolve(a, b)

    monkeypatch.setattr(torch, "_int_mm", counted)
    unit = {"scale": "channel"}
    block = BinaryBlock(8, 8, 1, "conv", lean=True, **unit)
    for layer in (block.unit1.conv, block.unit2.conv):
        layer.latent = Counted(layer.latent.weight)
    y = block(torch.randn(2, 8, 4, 4, requires_grad=True))
    first = dict(counts)
    y.sum().backward()
    assert original is BinaryConv2d.forward
    assert counts["sums"] == first["sums"]
    assert first["latent"] == 2 and counts["latent"] == 4  # forward, and backward for the factors' gradients


def live_bytes(network, x):
    """Bytes of tensors that came to be in the forward pass and live on, but parameters, and are seen from Python."""
    saved, before = {}, {id(o) for o in gc.get_objects() if type(o) is torch.Tensor}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = network(x)
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers(), x, y)}
    gc.collect()
    for tensor in gc.get_objects():
        if type(tensor) is torch.Tensor and id(tensor) not in before:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(size for at, size in saved.items() if at not in own)


def test_only_input_and_sums_of_a_block_are_kept():
    x = torch.randn(2, 32, 8, 8, requires_grad=True)
    kept = HierarchicalBlock(32, 32)
    lean = HierarchicalBlock(32, 32, lean=True)
    pixels = 2 * 8 * 8
    # sums of 16 + 8 + 8 channels in two bytes; the input is the caller's, and weights are dense
    assert live_bytes(lean, x) == pixels * 32 * 2 + random_state_bytes()
    assert live_bytes(kept, x) > 2 * pixels * 32 * 2


def random_state_bytes():
    """That checkpointing keeps, so that dropout would drop the same."""
    return torch.get_rng_state().nbytes


def test_dropout_and_linear_layers_within_a_segment():
    class Part(nn.Sequential):
        lean = True

        def forward(self, x):
            return recomputed(super().forward, x, self) if self.lean else super().forward(x)

    def make(lean):
        part = Part(
            BinaryConv2d(3, 4, 3, bias=True, latent=Matrix),
            nn.BatchNorm2d(4, momentum=None),
            nn.Dropout(),
            nn.Flatten(),
            BinaryLinear(64, 5, latent=Matrix),
        )
        part.lean = lean
        return part

    kept, lean = a_pair(make)
    x = torch.randn(6, 3, 6, 6)
    for network in (kept, lean):
        torch.manual_seed(3)
        steps(network, x)
    assert_equal(kept, lean)
