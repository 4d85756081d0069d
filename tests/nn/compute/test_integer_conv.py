from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from bnnlight.nn.compute import integer_conv, kernels
from bnnlight.nn.compute.integer_conv import has_integer_products, integer_sums
from bnnlight.nn.compute.patches import ConvShape, add_patches, pad, patches

SHAPES = {
    "plain": ConvShape((1, 1), (0, 0), (1, 1), 1, 0),
    "padded": ConvShape((1, 1), (1, 2), (1, 1), 1, 0),
    "padded -1": ConvShape((2, 1), (2, 1), (1, 1), 1, -1),
    "dilated": ConvShape((1, 2), (1, 0), (2, 3), 1, 1),
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def signs(*size):
    return torch.randint(2, size).mul(2).sub(1).to(torch.int8)


@each_shape
@pytest.mark.parametrize("patch_bytes", [1, 3000, 2**20])
def test_sums_are_those_of_a_float_convolution(shape, patch_bytes, monkeypatch):
    monkeypatch.setattr(integer_conv, "PATCH_BYTES", patch_bytes)
    x, weight = signs(7, 5, 9, 10), signs(6, 5, 3, 2)
    found = list(integer_sums(x, weight, shape))
    padded = F.pad(x.double(), [shape.padding[1]] * 2 + [shape.padding[0]] * 2, value=shape.padding_value)
    expected = F.conv2d(padded, weight.double(), None, shape.stride, 0, shape.dilation)
    assert torch.equal(torch.cat(found).double(), expected)
    assert (len(found) > 1) == (patch_bytes < 2**20)


def test_sums_beyond_16_bits_are_exact():
    # 40,000 equal products: a processor that saturates at 16 bits would show it
    x, weight = torch.ones(1, 10_000, 2, 2, dtype=torch.int8), -torch.ones(3, 10_000, 2, 2, dtype=torch.int8)
    (sums,) = integer_sums(x, weight, SHAPES["plain"])
    assert sums.flatten().tolist() == [-40_000] * 3


@pytest.fixture
def untried(monkeypatch):
    """As in a process that has not multiplied integers yet."""
    monkeypatch.setattr(kernels.int_mm, "_verdicts", {})


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_without_the_product_there_are_no_integers(error, monkeypatch, untried):
    def fail(a, b):
        raise error("no such thing")

    monkeypatch.setattr(torch, "_int_mm", fail)
    assert not has_integer_products()


def test_a_processor_that_saturates_is_found_out(monkeypatch, untried):
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.int() @ b.int()).clamp(-1000, 1000))
    assert not has_integer_products()


@pytest.mark.parametrize(("slow", "taken"), [("mm", True), ("_int_mm", False)])
def test_a_processor_whose_integers_are_slow_is_found_out(slow, taken, monkeypatch, untried):
    # right on any processor
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.double() @ b.double()).int())
    product, clock = getattr(torch, slow), [0.0]

    def slowly(a, b):
        clock[0] += 0.1
        return product(a, b)

    monkeypatch.setattr(torch, slow, slowly)
    monkeypatch.setattr(kernels, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert has_integer_products() is taken


@each_shape
def test_patches_are_what_unfold_takes(shape):
    x = torch.randn(2, 3, 9, 10).contiguous(memory_format=torch.channels_last)
    padded = pad(x, shape)
    found = patches(padded, (3, 2), shape)
    expected = F.unfold(padded, (3, 2), shape.dilation, 0, shape.stride)  # (N, C·kh·kw, positions)
    assert torch.equal(found.permute(0, 5, 3, 4, 1, 2).reshape(expected.shape), expected)


@each_shape
def test_adding_patches_is_the_transpose(shape):
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    taken = patches(x, (3, 2), shape)
    values, into = torch.randn(taken.shape, dtype=torch.float64), torch.zeros_like(x)
    add_patches(values, into, shape)
    torch.testing.assert_close((into * x).sum(), (values * taken).sum())
    # ⟨Aᵀv, x⟩ = ⟨v, Ax⟩ for one x could be luck; each pixel by itself is not
    for at in ((0, 0, 0, 0), (1, 2, 4, 5), (1, 0, 8, 9)):
        one = torch.zeros_like(x)
        one[at] = 1
        torch.testing.assert_close(into[at], (values * patches(one, (3, 2), shape)).sum())
