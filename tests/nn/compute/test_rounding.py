"""Half precision: one result, whichever way sums are computed, in training and evaluation alike."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.nn import BinaryConv2d, BinaryLinear, Matrix
from bnnlight.nn.compute import binary_conv
from bnnlight.nn.compute.lean import recomputed
from bnnlight.nn.compute.rounding import output_dtype

OPTIONS = {
    "plain": {},
    "padded -1": {"padding": 1, "padding_value": -1},
    "grouped": {"groups": 2},
    "spatial": {"scale": "spatial", "output_size": (6, 6), "padding": 1},
    "no scale": {"scale": "none"},
    "bias": {"bias": True},
    "matrix": {"latent": Matrix},
}
each_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
# autocast, half-precision inputs of a full-precision layer, a network of half precision
HOW = pytest.mark.parametrize("how", ["autocast", "input", "all"])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def given(layer, x, dtype, how):
    layer = copy.deepcopy(layer).to(dtype) if how == "all" else copy.deepcopy(layer)
    return layer, x if how == "autocast" else x.to(dtype)


def run(layer, x, dtype, how, *more):
    with torch.autocast("cpu", dtype, enabled=how == "autocast"):
        return layer(x, *more)


def expected(layer, x, dtype):
    """Exact sums, α in float32, rounded once; α of each position and bias in half precision, as they come behind."""
    with torch.no_grad():
        signs, weight = torch.where(x >= 0, 1.0, -1.0), layer.binary_weight().float()
        if isinstance(layer, BinaryLinear):
            y = (signs.double() @ weight.T.double()).float()
            return (y * layer.alpha().float()).to(dtype)
        value = float(layer.padding_value)
        padded = F.pad(signs, [side for side in layer.padding[::-1] for _ in range(2)], value=value)
        y = F.conv2d(padded.double(), weight.double(), groups=layer.groups).float()
        alpha = layer.alpha()
        if alpha is not None and alpha.ndim == 1:
            y, alpha = y * alpha.float().view(-1, 1, 1), None
        y = y.to(dtype)
        y = y if alpha is None else y * alpha.to(dtype)
        return y if layer.bias is None else y + layer.bias.to(dtype).view(-1, 1, 1)


@DTYPES
@HOW
@each_options
def test_both_ways_and_both_modes_give_one_result(options, how, dtype, monkeypatch):
    layer = BinaryConv2d(512, 8, 3, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    # sums of 4,608 signs, which neither half precision holds
    layer, x = given(layer, torch.randn(2, 512, 6, 6), dtype, how)
    if layer.alpha() is not None and how == "all":
        assert layer.alpha().dtype == dtype
    wanted = expected(layer, x, dtype)
    for integers in (True, False):
        monkeypatch.setattr(binary_conv, "takes_integers", lambda device, groups, use=integers: use and groups == 1)
        found = run(layer.train(), x, dtype, how)
        assert found.dtype == dtype
        assert torch.equal(found, wanted)
    assert torch.equal(run(layer.eval(), x, dtype, how), wanted)
    with torch.no_grad():
        assert torch.equal(run(layer, x, dtype, how), wanted)


@DTYPES
@HOW
def test_linear_layers_too(how, dtype):
    layer, x = given(BinaryLinear(3001, 7, bias=False), torch.randn(4, 3001), dtype, how)
    for mode in (True, False):
        found = run(layer.train(mode), x, dtype, how)
        assert found.dtype == dtype
        assert torch.equal(found, expected(layer, x, dtype))


@DTYPES
@HOW
@pytest.mark.parametrize("lean", [False, True])
def test_gradients_are_one_too(how, dtype, lean, monkeypatch):
    first, x = given(BinaryConv2d(256, 16, 3), torch.randn(3, 256, 6, 6), dtype, how)
    second = BinaryConv2d(16, 16, 3, latent=Matrix).to(next(first.parameters()).dtype)
    slopes = torch.rand(16, dtype=next(first.parameters()).dtype)
    grads = []
    for integers in (True, False):
        monkeypatch.setattr(binary_conv, "takes_integers", lambda device, groups, use=integers: use and groups == 1)
        network = nn.ModuleList([copy.deepcopy(first), copy.deepcopy(second)]).train()
        slope, start = slopes.clone().requires_grad_(), x.clone().requires_grad_()

        def forward(x, network=network, slope=slope):
            return network[1](network[0](x, slope) * 0.01)

        with torch.autocast("cpu", dtype, enabled=how == "autocast"):
            y = recomputed(forward, start, network) if lean else forward(start)
        y.float().square().mean().backward()
        grads.append([y.detach(), slope.grad, start.grad, *(p.grad for p in network.parameters())])
    assert len(grads[0]) > 5 and all(grad.float().abs().sum() > 0 for grad in grads[0])
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def test_the_dtype_of_an_output_is_that_of_a_convolution():
    layer, plain = BinaryConv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.randn(1, 2, 2, 2).to(dtype)
        wanted = plain.to(dtype)(x).dtype
        assert output_dtype(x) == layer.train()(x).dtype == layer.eval()(x).dtype == wanted
        with torch.autocast("cpu", torch.float16):
            wanted = plain.to(dtype)(x).dtype
            assert output_dtype(x) == layer.train()(x).dtype == layer.eval()(x).dtype == wanted
    assert output_dtype(torch.empty(1, device="meta")) == torch.float32
