"""Files under OpenVINO's own defaults, bfloat16 on processors that have AVX512_BF16: equal to our engine."""

import re
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from fixtures.sealed_files import MANIFEST, every_operation
from fixtures.trained_networks import trained
from torch import nn

from bnnlight.backbones import ResNet, ResNet18, StackedHourglass
from bnnlight.deploy.formats.int8 import find_ranges
from bnnlight.deploy.formats.openvino import OpenVINOEngine, save_openvino
from bnnlight.deploy.formats.openvino_precision import keep_float32, narrow_nodes
from bnnlight.deploy.formats.packed import load_packed
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.shipped import shipped_models
from bnnlight.nn import BinaryConv2d


def in_bfloat16(file, **properties):
    """The file as compiled for bfloat16, which is OpenVINO's default where the processor has it; else a skip."""
    compiled = ov.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "bf16", **properties})
    if compiled.get_property("INFERENCE_PRECISION_HINT") != ov.Type.bf16:
        pytest.skip("OpenVINO does not compute in bfloat16 on this processor")
    return compiled


def unmarked(file, folder):
    """The same file without its marks."""
    folder.mkdir()
    text = re.sub(r'<attribute name="DisablePrecisionConversion"[^>]*>', "", file.read_text())
    (folder / file.name).write_text(text)
    (folder / file.name).with_suffix(".bin").write_bytes(file.with_suffix(".bin").read_bytes())
    return folder / file.name


def outputs(compiled, images):
    return np.concatenate([compiled(image[None])[0].copy() for image in images])


def check_equal(program, folder, count=3, **options):
    """Every node computes in float32, and every output is the engine's to the last bit; returns the compiled model."""
    images = np.random.default_rng(0).normal(size=(count, *program.input_shape)).astype(np.float32)
    if options.pop("int8", False):
        options["ranges"] = find_ranges(program, [images])
    file = save_openvino(program, MANIFEST, folder, **options)
    compiled = in_bfloat16(file)
    assert narrow_nodes(compiled) == {}
    assert np.array_equal(outputs(compiled, images), OpenVINOEngine(file, 1)(images))
    # what the marks are needed for
    assert set(narrow_nodes(in_bfloat16(unmarked(file, folder / "unmarked"))).values()) == {"bf16"}
    return compiled


class Windows(nn.Module):
    """Pools of every kind with convolutions round them, padding with ones, interpolation."""

    def __init__(self):
        super().__init__()
        pools = [nn.MaxPool2d(3, 2, 1, 1), nn.MaxPool2d(2, 1, 0, 2), nn.MaxPool2d(3, 2, 1, ceil_mode=True)]
        for include in (True, False):
            pools += [nn.AvgPool2d(3, 2, 1, ceil, include) for ceil in (True, False)]
        self.stem, self.pools = nn.Conv2d(3, 8, 3, bias=False), nn.ModuleList(pools)
        self.next = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(len(pools) + 1))
        self.up = nn.Upsample(scale_factor=(2, 3))
        self.norm, self.binary = nn.BatchNorm2d(8), BinaryConv2d(8, 8, 3, padding=1, padding_value=1)
        self.unpacked = BinaryConv2d(8, 9, 3, padding=1, padding_value=-1, groups=1)
        self.last = BinaryConv2d(9, 6, 3, padding=1, padding_value=1, groups=3)

    def forward(self, x):
        x = self.stem(x)
        y = [conv(pool(x)).mean((2, 3)) for pool, conv in zip(self.pools, self.next, strict=False)]
        x = self.next[-1](self.up(x))
        y.append(self.last(self.unpacked(self.binary(self.norm(x)).clamp(-3, 3))).flatten(1))
        return torch.cat(y, 1)


NETWORKS = {
    "windows": (Windows, (3, 9, 11)),
    "residual": (lambda: ResNet((1, 1), num_classes=7, width=0.125, stem="imagenet", shortcut="block"), (3, 41, 41)),
    "light stem": (lambda: ResNet((1, 1), num_classes=7, width=0.25, stem="light"), (3, 41, 41)),
    "ResNet-18": (ResNet18, (3, 64, 64)),
    "hourglass": (lambda: StackedHourglass(num_joints=4, features=16, stacks=2, depth=1), (3, 32, 32)),
    "light hourglass": (lambda: StackedHourglass(num_joints=4, features=64, depth=1, stem="light"), (3, 32, 32)),
}


@pytest.mark.parametrize("options", [{}, {"real_dtype": "fp16"}, {"int8": True}], ids=["float32", "float16", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_in_float32_wherever_they_run(name, options, tmp_path):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    check_equal(freeze(trained(make()), shape), tmp_path, **options)


@pytest.mark.parametrize("int8", [False, True])
def test_every_operation_computes_in_float32(int8, tmp_path):
    check_equal(every_operation(), tmp_path, int8=int8)


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_shipped_models_answer_alike_by_default(name, tmp_path):
    program, manifest = load_packed(shipped_models()[name] / "model.safetensors")
    images = np.random.default_rng(1).normal(size=(8, *program.input_shape)).astype(np.float32)
    file = save_openvino(program, manifest, tmp_path)
    # as anybody's own script does it: no options at all
    assert np.array_equal(outputs(ov.Core().compile_model(file, "CPU"), images), OpenVINOEngine(file)(images))


def test_marks_last_when_openvino_writes_the_file_anew_or_caches_it(tmp_path):
    program = freeze(trained(ResNet((1, 1), num_classes=5, width=0.125)), (3, 32, 32))
    file = save_openvino(program, MANIFEST, tmp_path)
    again = tmp_path / "again.xml"
    ov.save_model(ov.Core().read_model(file), again)
    cache = str(tmp_path / "cache")
    for compiled in (in_bfloat16(again), in_bfloat16(file, CACHE_DIR=cache), in_bfloat16(file, CACHE_DIR=cache)):
        assert narrow_nodes(compiled) == {}
    assert list(Path(cache).iterdir())


def test_each_node_that_computes_is_marked_once():
    xml = (
        b'<net><layers><layer id="0" name="a" type="Parameter" version="opset1"><output/></layer>'
        b'<layer id="1" name="x type=&quot;Const&quot; >" type="Add" version="opset1"><input/></layer>'
        b'<layer id="2" name="c" type="Const" version="opset1"/></layers></net>'
    )
    mark = b'<rt_info><attribute name="DisablePrecisionConversion" version="0" value="dynamic:f16"/></rt_info>'
    before, after = xml.split(b"<input/>")
    assert keep_float32(xml) == before + mark + b"<input/>" + after


class Sums(nn.Module):
    """Residual sums that nothing but a sign reads, with and without scale and slope between."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.layers = nn.ModuleList(
            BinaryConv2d(16, 16, 3, padding=1, scale=scale) for scale in ("none", "channel", "none", "none")
        )
        self.slope = nn.PReLU(16)

    def forward(self, x):
        x = self.stem(x)
        y = self.layers[0](x) + x
        y = self.layers[1](y) + x
        y = self.slope(self.layers[2](y)) + x
        return self.layers[3](y)


@pytest.mark.parametrize("int8", [False, True])
def test_no_sum_and_sign_are_computed_in_one_node(int8, tmp_path):
    torch.manual_seed(0)
    network = trained(Sums())
    program = freeze(network, (3, 12, 12))
    images = torch.randn(4, 3, 12, 12)
    file = save_openvino(program, MANIFEST, tmp_path, ranges=find_ranges(program, [images.numpy()]) if int8 else None)
    compiled = ov.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    joined = [
        str(node.get_rt_info()["originalLayersNames"].value).split(",")
        for node in compiled.get_runtime_model().get_ordered_ops()
    ]
    packing = [names for names in joined if any(name.endswith(".bits") for name in names)]
    assert packing == [[f"layers.{index}.sign.bits"] for index in range(4)]
    if not int8:
        with torch.no_grad():
            assert np.array_equal(outputs(compiled, images.numpy()), network(images).numpy())
