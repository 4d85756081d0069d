"""OpenVINO against torch's own arithmetic on the same network."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.backbones import ResNet, StackedHourglass
from bnnlight.deploy.formats.int8 import find_ranges
from bnnlight.deploy.formats.onnx import OnnxEngine, save_onnx
from bnnlight.deploy.formats.openvino import ON_BITS, OpenVINOEngine, openvino_signs, save_openvino
from bnnlight.deploy.formats.openvino_graph import cuts
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Step
from bnnlight.nn import BinaryConv2d, BinaryLinear, named_binary_layers

MANIFEST = Manifest(
    task="classification",
    network="tests.Network",
    input=PictureInput(channels=3, size_px=8, mean=(0.5,) * 3, std=(0.25,) * 3, resize_px=8),
    classes=("a & b", "<c>", 'd "e"', "it's"),
)


def processor_flags():
    """What Linux says this x86 processor has; nothing elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def random_numbers(model, seed=0):
    """Batch norms with weights of both signs, one of them zero and one tiny; α of both signs."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            with torch.no_grad():
                module.weight[0] = 0
                module.weight[-1] = 1e-30
        if isinstance(module, nn.PReLU):
            nn.init.normal_(module.weight)
        if hasattr(module, "scale") and isinstance(getattr(module.scale, "alpha", None), nn.Parameter):
            nn.init.normal_(module.scale.alpha)
    return model.eval()


def shipped(model, shape, folder, **options):
    return save_openvino(freeze(model, shape), MANIFEST, folder, **options)


@torch.no_grad()
def compare(model, shape, folder, batch=3):
    """Output of torch and of OpenVINO, and the signs of both by binary layer."""
    images = torch.randn(batch, *shape)
    seen = {}
    hooks = [
        layer.register_forward_hook(lambda module, inputs, y, name=name: seen.update({name: inputs[0] >= 0}))
        for name, layer in named_binary_layers(model)
    ]
    wanted = model(images).numpy()
    for hook in hooks:
        hook.remove()
    file = shipped(model, shape, folder)
    signs = openvino_signs(file)(images.numpy())
    # the same batch twice: nothing of the first may show in the second
    engine = OpenVINOEngine(file, num_threads=1)
    found = engine(images.numpy())
    assert np.array_equal(engine(images.numpy()), found)
    single = engine(images.numpy()[1:2])
    assert np.array_equal(single, found[1:2])
    assert set(signs) == {f"{name}.sign" for name in seen}
    for name, sign in seen.items():
        assert np.array_equal(signs[f"{name}.sign"], sign.numpy()), name
    return wanted, found


CASES = [
    dict(inputs=i, outputs=o, kernel=k, stride=s, padding=p, padding_value=v, groups=g)
    for (i, o, g), (k, p), s, v in itertools.product(
        [(3, 5, 1), (8, 16, 1), (70, 130, 1), (6, 9, 3), (4, 4, 4)],
        [(1, 0), (3, 0), (3, 1), (3, 2), (7, 3)],
        [1, 2],
        [0, 1, -1],
    )
    if p or not v
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_a_binary_convolution_is_exact(case, tmp_path):
    # α is 1: the sums are whole numbers, and nothing may be lost
    layer = BinaryConv2d(
        case["inputs"],
        case["outputs"],
        case["kernel"],
        case["stride"],
        case["padding"],
        groups=case["groups"],
        padding_value=case["padding_value"],
        scale="none",
    )
    model = random_numbers(nn.Sequential(nn.BatchNorm2d(case["inputs"]), layer))
    try:
        wanted, found = compare(model, (case["inputs"], 9, 12), tmp_path)
    except ValueError as error:
        # nothing smaller is refused, and nothing where there is AVX-512
        assert "no kernel on this processor" in str(error)
        assert case["kernel"] == 7 and case["outputs"] == 16 and "avx512f" not in processor_flags()
        pytest.skip(str(error))
    assert np.array_equal(found, wanted)


def test_an_operator_that_the_processor_lacks_is_told_in_a_line(tmp_path, monkeypatch):
    def refuse(self, *args):
        raise RuntimeError("Exception\nBinaryConvolution node with name 'conv' has unsupported parameters")

    file = shipped(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval(), (3, 2, 2), tmp_path)
    monkeypatch.setattr("openvino.Core.compile_model", refuse)
    with pytest.raises(ValueError, match=r"binary convolution 'conv' .* --format packed or onnx"):
        OpenVINOEngine(file)(np.zeros((1, 3, 2, 2), np.float32))


def test_dilation_and_uneven_settings(tmp_path):
    layer = BinaryConv2d(5, 7, (3, 1), (2, 1), (2, 0), (2, 1), scale="none")
    wanted, found = compare(random_numbers(nn.Sequential(nn.BatchNorm2d(5), layer)), (5, 11, 6), tmp_path)
    assert np.array_equal(found, wanted)


def test_a_binary_linear_layer_is_exact(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(60), BinaryLinear(60, 11, scale="none"))
    wanted, found = compare(random_numbers(model), (3, 4, 5), tmp_path)
    assert np.array_equal(found, wanted)


class Twice(nn.Module):
    """One sign for two layers, and a sign that is joined to real numbers."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(6)
        self.one, self.two = BinaryConv2d(6, 4, 3, padding=1), BinaryConv2d(6, 4, 1)
        self.last = BinaryConv2d(8, 4, 3, groups=2)

    def forward(self, x):
        x = self.norm(x)
        return self.last(torch.cat((self.one(x), self.two(x)), 1))


def test_values_with_two_readers(tmp_path):
    wanted, found = compare(random_numbers(Twice()), (6, 8, 8), tmp_path)
    assert np.allclose(found, wanted, rtol=1e-6, atol=1e-6)


RESIDUAL = [("small", "conv", 9), ("imagenet", "block", 41), ("light", "conv", 41), ("half", "conv", 15)]


@pytest.mark.parametrize("stem,style,size", RESIDUAL)
def test_residual_networks(stem, style, size, tmp_path):
    model = ResNet((1, 1), num_classes=7, width=0.2, stem=stem, shortcut=style, padding_value=1)
    wanted, found = compare(random_numbers(model), (3, size, size), tmp_path)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_an_hourglass(tmp_path):
    model = StackedHourglass(num_joints=4, features=16, stacks=2, depth=2)
    wanted, found = compare(random_numbers(model), (3, 32, 48), tmp_path)
    assert found.shape == (3, 2, 4, 8, 12)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_pools(ceil, include, size, tmp_path):
    pools = [
        nn.MaxPool2d(3, 2, 1, ceil_mode=ceil),
        nn.AvgPool2d(3, 2, 1, ceil_mode=ceil, count_include_pad=include),
        nn.AvgPool2d(2, 2, ceil_mode=ceil, count_include_pad=include),
    ]
    images = torch.randn(2, 3, size, size + 1)
    for number, pool in enumerate(pools):
        folder = tmp_path / str(number)
        folder.mkdir()
        # a convolution, since a network without numbers has nothing to ship
        model = nn.Sequential(nn.Conv2d(3, 3, 1), pool).eval()
        found = OpenVINOEngine(shipped(model, (3, size, size + 1), folder))(images.numpy())
        with torch.no_grad():
            assert np.allclose(found, model(images).numpy(), atol=1e-6)


def test_every_other_operation(tmp_path):
    class Rest(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 3, padding=1, groups=2)
            self.up = nn.Upsample(scale_factor=(2, 3))
            self.scale = nn.Parameter(torch.randn(1, 8, 1, 1))

        def forward(self, x):
            x = self.up(nn.functional.relu(self.conv(x)) * self.scale)
            y = torch.stack((x.sigmoid(), x.tanh(), x - 0.5), 1)
            return y.flatten(1)

    torch.manual_seed(0)
    model = Rest().eval()
    images = torch.randn(2, 4, 5, 3)
    found = OpenVINOEngine(shipped(model, (4, 5, 3), tmp_path))(images.numpy())
    with torch.no_grad():
        assert np.allclose(found, model(images).numpy(), atol=1e-6)


@pytest.mark.parametrize("save,engine", [(save_openvino, OpenVINOEngine), (save_onnx, OnnxEngine)])
def test_batch_norms_behind_real_layers_are_rounded_as_in_torch(save, engine, tmp_path):
    # convolutions that add up nothing, so that the batch norms' rounding is all there is
    torch.manual_seed(0)
    layers = []
    for _ in range(3):
        layers += [nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16)]
        with torch.no_grad():
            layers[-3].weight.copy_(torch.eye(16).view(16, 16, 1, 1))
    model = random_numbers(nn.Sequential(*layers))
    images = torch.randn(2, 16, 9, 11)
    told = PictureInput(channels=3, size_px=9, mean=(0.5,) * 3, std=(0.25,) * 3)
    file = save(freeze(model, (16, 9, 11)), replace(MANIFEST, input=told), tmp_path)
    with torch.no_grad():
        assert np.array_equal(engine(file)(images.numpy()), model(images).numpy())


def test_cuts_stand_just_below_the_thresholds():
    infinity, tiny = np.float32(np.inf), np.finfo(np.float32).tiny
    threshold = np.array([1, -1, 0, 0, infinity, -infinity, 1e-42], np.float32)
    direction = np.array([1, -1, 1, -1, 1, 1, 1], np.float32)
    step = Step("s", "binarize", ("input",), {}, {"threshold": threshold, "direction": direction})
    cut, inverted = cuts(step)
    assert inverted.tolist() == [False, True, False, True, False, False, False]
    # x >= 1 is x > the number before 1; x <= -1 is not (x > -1); numbers below `tiny` count as zero
    largest = np.finfo(np.float32).max
    wanted = [1 - 2**-24, -1, -tiny, 0, largest, -largest, 0]
    assert cut.tolist() == [float(np.float32(w)) for w in wanted]


def test_zero_is_positive(tmp_path):
    model = nn.Sequential(nn.ReLU(), BinaryConv2d(2, 3, 1, scale="none"), nn.Identity()).eval()
    images = np.zeros((1, 2, 2, 2), np.float32)
    images[0, 0, 0, 0] = -1e-3
    found = OpenVINOEngine(shipped(model, (2, 2, 2), tmp_path))(images)
    assert np.array_equal(found[0, :, 0, 0], model[1].binary_weight().sum((1, 2, 3)).numpy())


def test_one_bit_a_weight(tmp_path):
    model = random_numbers(ResNet((2, 2), num_classes=10, width=1))
    program = freeze(model, (3, 32, 32))
    file = save_openvino(program, MANIFEST, tmp_path)
    stored = file.with_suffix(".bin").stat().st_size
    assert program.num_binary == 64 * 64 * 9 * 4 + 64 * 128 * 9 + 3 * 128 * 128 * 9
    # besides bits and real numbers only the levels of the signs
    assert stored <= program.num_binary // 8 + 4 * program.num_real + 4 * 1000
    half = save_openvino(program, MANIFEST, tmp_path, real_dtype="fp16").with_suffix(".bin").stat().st_size
    weights = sum(step.tensors["weight"].size for step in program.steps if "weight" in step.tensors)
    assert abs(stored - half - 2 * weights) <= 200


def test_binary_layers_run_on_bits(tmp_path):
    model = random_numbers(ResNet((1, 1), num_classes=10, width=0.5))
    executed = OpenVINOEngine(shipped(model, (3, 32, 32), tmp_path)).executed()
    assert len(executed) == 4
    assert all(re.fullmatch(r"BinaryConvolution jit_\w+", kind) for kind in executed.values()), executed


def test_layers_that_fall_back_are_told(tmp_path):
    # input channels that are no multiple of eight, by themselves and in groups
    layers = [
        BinaryConv2d(12, 16, 3),
        BinaryConv2d(16, 16, 1),
        BinaryConv2d(16, 16, 1, groups=2),
        BinaryConv2d(16, 8, 1),
    ]
    layers.insert(3, BinaryConv2d(16, 16, 1, groups=4))
    model = random_numbers(nn.Sequential(nn.BatchNorm2d(12), *layers))
    executed = OpenVINOEngine(shipped(model, (12, 8, 8), tmp_path)).executed()
    on_bits = {name: kind.startswith(ON_BITS) for name, kind in executed.items()}
    bits = ("2.sum", "3.sum/0", "3.sum/1", "5.sum")
    assert on_bits == dict.fromkeys(bits, True) | {"1.sum": False, "4.sum": False}


def test_half_weights_are_those_rounded_to_float16(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    file = shipped(model, (3, 8, 8), tmp_path, real_dtype="fp16")
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(layer.weight.half().float())
        assert np.allclose(OpenVINOEngine(file)(images.numpy()), model(images).numpy(), rtol=1e-5, atol=1e-5)


def test_integer_layers_are_near_and_small(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten())
    model.append(nn.Linear(32 * 36, 64)).eval()
    program = freeze(model, (3, 8, 8))
    images = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    ranges = find_ranges(program, [images[:8], images[8:]])
    # the input's range by hand; behind the ReLU nothing is negative
    assert ranges["0"] == (pytest.approx(images.min()), pytest.approx(images.max()))
    assert ranges["2"][0] == 0
    file = save_openvino(program, MANIFEST, tmp_path, ranges=ranges)
    with torch.no_grad():
        wanted = model(torch.from_numpy(images)).numpy()
    weights = sum(step.tensors["weight"].size for step in program.steps if "weight" in step.tensors)
    assert file.with_suffix(".bin").stat().st_size <= weights + 4 * 300
    if "avx2" in (flags := processor_flags()) and not flags & {"avx512_vnni", "avx_vnni"}:
        pytest.skip("OpenVINO's 8-bit products saturate at 16 bits on processors without VNNI, such as this one")
    assert np.abs(OpenVINOEngine(file)(images) - wanted).max() <= 0.03 * np.abs(wanted).max()
