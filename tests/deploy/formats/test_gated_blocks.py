"""Blocks whose values meet in products, parts and shuffles, in each format beside torch."""

import math
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.deploy.formats.packed import InTorch
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import INPUT, Program, Step
from bnnlight.deploy.proof.verify import SideBySide
from bnnlight.deploy.runtime import Runtime
from bnnlight.nn import BinaryConv2d, convert

SIZE = 20
MANIFEST = Manifest("classification", "tests.Net", PictureInput(3, SIZE, (0.5,) * 3, (0.25,) * 3), tuple("abcde"))
FORMATS = ("packed", "openvino", "onnx")


def unit(inputs, outputs, kernel=1, groups=1, act=nn.ReLU):
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act())


class Squeezed(nn.Module):
    """Squeeze-and-excitation behind a depth-wise convolution, and a shortcut past both."""

    def __init__(self, channels, act, gate):
        super().__init__()
        self.wide = unit(channels, 2 * channels, act=act)
        self.deep = unit(2 * channels, 2 * channels, 3, 2 * channels, act)
        self.pool, self.act, self.gate = nn.AdaptiveAvgPool2d(1), act(), gate()
        self.less, self.more = nn.Conv2d(2 * channels, 8, 1), nn.Conv2d(8, 2 * channels, 1)
        self.back = unit(2 * channels, channels, act=nn.Identity)

    def forward(self, x):
        y = self.deep(self.wide(x))
        y = y * self.gate(self.more(self.act(self.less(self.pool(y)))))
        return y[:, : x.shape[1]] + self.back(y) + x


class Shuffled(nn.Module):
    """One half of the channels goes on as it is, the other through convolutions; then both by turns."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.deep = nn.Sequential(unit(half, half), unit(half, half, 3, half, nn.Identity), unit(half, half))

    def forward(self, x):
        one, other = x.chunk(2, dim=1)
        n, c, h, w = x.shape
        return torch.cat((one, self.deep(other)), 1).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Ghosts(nn.Module):
    """Half of the channels are made of the other half, at less cost; a gate for each pixel at half the size."""

    def __init__(self, channels):
        super().__init__()
        self.first, self.cheap = unit(channels, channels // 2), unit(channels // 2, channels // 2, 3, channels // 2)
        self.gate = unit(channels, channels, 3, act=nn.Hardsigmoid)

    def forward(self, x):
        y = self.first(x)
        gate = F.interpolate(self.gate(F.avg_pool2d(x, 2)), size=x.shape[2:], mode="nearest")
        return torch.cat([y, self.cheap(y)], 1)[:, : x.shape[1]] * gate


class InSteps(nn.Module):
    """Parts of the channels, each of which also sees what was made of the one before."""

    def __init__(self, channels):
        super().__init__()
        self.convs = nn.ModuleList(unit(channels // 4, channels // 4, 3) for _ in range(3))

    def forward(self, x):
        parts, made = torch.split(x, x.shape[1] // 4, 1), []
        for number, conv in enumerate(self.convs):
            made.append(conv(parts[number] if number == 0 else made[-1] + parts[number]))
        return torch.cat([*made, parts[3]], 1)


BLOCKS = {
    "squeeze, SiLU": lambda: Squeezed(16, nn.SiLU, nn.Sigmoid),
    "squeeze, Hardswish": lambda: Squeezed(16, nn.Hardswish, nn.Hardsigmoid),
    "squeeze, GELU": lambda: Squeezed(16, nn.GELU, nn.Sigmoid),
    "shuffle": lambda: nn.Sequential(Shuffled(16), Shuffled(16)),
    "ghosts": lambda: nn.Sequential(Ghosts(16), Ghosts(16)),
    "parts": lambda: nn.Sequential(InSteps(16), nn.PReLU(16)),
}


@pytest.fixture
def trained():
    """Give a converted network around a block the statistics of a few pictures, as training would."""

    def give(block):
        torch.manual_seed(0)
        head = nn.Sequential(
            nn.AdaptiveAvgPool2d((4, 3)), nn.AdaptiveAvgPool2d((5, 6)), nn.Flatten(), nn.Linear(480, 5)
        )
        model = convert(
            nn.Sequential(unit(3, 16, 3), block, BinaryConv2d(16, 16, 3), head), input_shape=(3, SIZE, SIZE)
        )
        for _ in range(5):
            model.train()(torch.randn(8, 3, SIZE, SIZE))
        return model.eval()

    return give


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_the_same_in_each_format(block, trained, tmp_path):
    model = trained(BLOCKS[block]())
    program = freeze(model, (3, SIZE, SIZE))
    pictures = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    for name in FORMATS:
        module, folder = import_module(f"bnnlight.deploy.formats.{name}"), tmp_path / name
        folder.mkdir()
        file = getattr(module, f"save_{name}")(program, MANIFEST, folder)
        both = SideBySide(model, Runtime(file, num_threads=1), getattr(module, f"{name}_signs")(file))
        both(pictures)
        assert both.agreement.num_signs > 10_000
        assert both.agreement.num_flipped == 0, name
        assert both.agreement.output_difference < 1e-5, name


@pytest.mark.parametrize("name", FORMATS)
def test_a_product_and_a_sum_are_rounded_one_by_one(name, tmp_path):
    parts = [Step(f"part {n}", "slice_channels", (INPUT,), {"start": n, "stop": n + 1}) for n in range(3)]
    steps = (*parts, Step("product", "multiply", ("part 0", "part 1")), Step("sum", "add", ("product", "part 2")))
    x = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE), dtype=np.float32)
    expected = x[:, :1] * x[:, 1:2] + x[:, 2:]
    # rounded once, as a fused multiply-add does, it would be another number
    assert (expected != (x[:, :1].astype(np.float64) * x[:, 1:2] + x[:, 2:]).astype(np.float32)).mean() > 0.1
    program = Program((3, SIZE, SIZE), (*steps, Step("row", "flatten", ("sum",))))
    found = InTorch(program)(x) if name == "packed" else _run(name, program, x)
    np.testing.assert_array_equal(found, expected.reshape(2, -1))


def _run(name, program, x):
    if name == "openvino":
        from bnnlight.deploy.formats.openvino_compiled import Compiled
        from bnnlight.deploy.formats.openvino_graph import to_openvino

        return Compiled(to_openvino(program))(x)[0]
    from onnxruntime import InferenceSession

    from bnnlight.deploy.formats.onnx_graph import to_onnx

    return InferenceSession(to_onnx(program).SerializeToString()).run(None, {INPUT: x})[0]


CURVES = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * np.vectorize(math.erfc)(-x / np.sqrt(2)) / 2,
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
}


@pytest.mark.parametrize("op", CURVES)
@pytest.mark.parametrize("name", FORMATS)
def test_curves_are_those_of_their_formulas(op, name):
    # far out too, where a sigmoid computed by itself would be none any more
    x = np.linspace(-80, 80, 2 * SIZE * SIZE, dtype=np.float32).reshape(1, 2, SIZE, SIZE)
    settings = {"approximate": "none"} if op == "gelu" else {}
    program = Program((2, SIZE, SIZE), (Step("y", op, (INPUT,), settings),))
    found = InTorch(program)(x) if name == "packed" else _run(name, program, x)
    np.testing.assert_allclose(found, CURVES[op](x.astype(np.float64)), rtol=2e-6, atol=1e-6)
