"""Activations kept as bits: against numpy's packing, and Triton's kernels, by its interpreter, against plain torch."""

import importlib
import sys

import numpy as np
import pytest
import torch

from bnnlight.nn import BinaryConv2d
from bnnlight.nn.compute import bits
from bnnlight.nn.compute.binary_conv import binary_conv2d
from bnnlight.nn.compute.bits import Layout, gated, normalize_and_pack, pack, packed_activations, unpack_sign
from bnnlight.nn.compute.patches import ConvShape

NAN = float("nan")
EDGES = [0.0, -0.0, 1.0, -1.0, 1.0000001, -1.0000001, 0.5, 3.0, -3.0, float("inf"), -float("inf"), NAN, 1e-45, -1e-45]
IMAGES = [(2, 3, 5, 7), (1, 8, 1, 1), (3, 1, 4, 4), (0, 4, 3, 3), (2, 33, 9, 4)]
SHAPES = [
    *((shape, False) for shape in [(1,), (31,), (32,), (33,), (4, 5), *IMAGES]),
    *((shape, True) for shape in IMAGES),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.fixture(scope="module")
def triton_kernels():
    """The kernels, run by Triton's interpreter, which is chosen as they are defined."""
    pytest.importorskip("triton", reason="triton comes with torch on Linux alone")
    name = "bnnlight.nn.compute.bits_triton"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.delitem(sys.modules, name, raising=False)
        yield importlib.import_module(name)
        sys.modules.pop(name, None)


@pytest.fixture(params=["plain", "triton"])
def way(request, monkeypatch):
    """Each test by plain torch, and by the kernels."""
    if request.param == "triton":
        kernels = request.getfixturevalue("triton_kernels")
        monkeypatch.setattr(bits, "_triton", lambda x: kernels)
    return request.param


def drawn(shape, dtype=torch.float32, channels_last=False):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype) * 1.5
    flat = x.flatten()
    flat[: len(EDGES)] = torch.tensor(EDGES, dtype=torch.float64)[: len(flat)].to(dtype)
    x = flat.view(shape)
    return x.to(memory_format=torch.channels_last) if channels_last and x.ndim == 4 else x


def words(flags):
    """By numpy: the first entry in the lowest bit."""
    packed = np.packbits(flags, bitorder="little")
    return np.pad(packed, (0, -len(packed) % 4)).view(np.int32)


@pytest.mark.parametrize(("shape", "channels_last"), SHAPES)
def test_bits_are_those_of_numpy(way, shape, channels_last):
    x = drawn(shape, channels_last=channels_last)
    entries = x.numpy().astype(np.float64)
    if Layout.of(x).channels_last:
        entries = entries.transpose(0, 2, 3, 1)
    entries = entries.ravel()
    negative, passes = pack(x, "clipped")
    np.testing.assert_array_equal(negative.numpy(), words(~(entries >= 0)))
    np.testing.assert_array_equal(passes.numpy(), words(np.abs(entries) <= 1))
    only, none = pack(x, "identity")
    assert none is None and torch.equal(only, negative)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "channels_last"), SHAPES[3:])
def test_there_and_back(way, shape, dtype, channels_last):
    x = drawn(shape, dtype, channels_last)
    negative, passes = pack(x, "clipped")
    layout = Layout.of(x)
    expected = torch.tensor(np.where(x.double().numpy() >= 0, 1.0, -1.0)).to(dtype)
    sign = unpack_sign(negative, layout, dtype)
    assert sign.dtype == dtype and torch.equal(sign, expected)
    # a gradient may lie in another order than x
    for grad in (torch.randn(shape).to(dtype), drawn(shape, dtype, channels_last).nan_to_num_(2.0)):
        through = gated(grad, passes, layout)
        assert torch.equal(through, torch.where(x.double().abs() <= 1, grad, torch.zeros_like(grad)))
    assert gated(x, None, layout) is x


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 3), (2, 33, 9, 4), (0, 4, 3, 3)])
def test_a_norm_before_the_sign(way, shape, dtype, channels_last):
    x = drawn(shape, dtype, channels_last).nan_to_num_(0.25, 2.0, -2.0)
    scale, shift = torch.randn(2, shape[1], generator=torch.Generator().manual_seed(3))
    # by numpy, each operation rounded by itself
    along = [1, -1, *(1,) * (len(shape) - 2)]
    product = x.float().numpy() * scale.numpy().reshape(along)
    normalized = torch.from_numpy(product + shift.numpy().reshape(along))
    if Layout.of(x).channels_last:
        normalized = normalized.to(memory_format=torch.channels_last)
    for gradient in ("clipped", "identity"):
        found, expected = normalize_and_pack(x, scale, shift, gradient), pack(normalized, gradient)
        assert torch.equal(found[0], expected[0])
        assert (found[1] is None) == (gradient == "identity")
        assert found[1] is None or torch.equal(found[1], expected[1])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("gradient", ["identity", "clipped"])
def test_a_layer_that_packs_is_the_same_bit_for_bit(way, gradient, channels_last):
    generator = torch.Generator().manual_seed(0)
    shape = ConvShape((2, 2), (1, 1), (1, 1), 1, 1.0)
    x = drawn((3, 5, 9, 8), channels_last=channels_last).nan_to_num_(0.5, 2.0, -2.0)
    given = [x, torch.randn(7, 5, 3, 3, generator=generator), torch.rand(7, generator=generator), torch.full((7,), 0.3)]
    results = []
    for packed in (False, True):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        with packed_activations(packed):
            y = binary_conv2d(*leaves[:3], shape, gradient, slope=leaves[3])
        y.square().sum().backward()
        results.append([y, *(leaf.grad for leaf in leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("gradient", "bits_each"), [("identity", 1), ("clipped", 2), ("polynomial", 32)])
def test_what_is_kept_by_count(gradient, bits_each):
    layer = BinaryConv2d(64, 8, 3, padding=1, activation_gradient=gradient)
    x = torch.randn(2, 64, 16, 16, requires_grad=True)

    def kept(packed):
        sizes = {}

        def note(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), packed_activations(packed):
            layer(x)
        return sum(sizes.values())

    per_entry = 32 if gradient == "polynomial" else 8
    assert kept(False) - kept(True) == x.numel() * (per_entry - bits_each) // 8
