"""ReActNet's activation, shipped."""

import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.backbones import BinaryBlock, ResNet, StackedHourglass
from bnnlight.deploy.formats.onnx import OnnxEngine, onnx_signs, save_onnx
from bnnlight.deploy.formats.openvino import OpenVINOEngine, openvino_signs, save_openvino
from bnnlight.deploy.formats.packed import PackedEngine, packed_signs, save_packed
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.nn import BinaryConv2d, BinaryLinear, RPReLU, named_binary_layers

MANIFEST = Manifest("classification", "tests.Network", PictureInput(3, 8, (0.5,) * 3, (0.25,) * 3, 8), ("a", "b"))


@pytest.fixture
def moved(randomized):
    """As `randomized`, with shifts of either sign and, where asked, falling slopes."""

    def give(model, falling=False):
        randomized(model)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, RPReLU):
                    module.gamma.normal_(std=3)
                    module.zeta.normal_(std=3)
                    if falling:
                        module.slope.normal_()
        return model

    return give


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("shortcut", ["conv", "block"])
def test_residual_network(moved, check_frozen, shortcut, falling):
    model = ResNet((1, 1), 4, width=0.125, stem="small", shortcut=shortcut, activation=RPReLU)
    program = freeze(moved(model, falling), (3, 18, 18))
    check_frozen(model, program, torch.randn(3, 3, 18, 18))


def test_hourglass(moved, check_frozen):
    model = moved(StackedHourglass(num_joints=3, features=16, depth=2, activation=RPReLU))
    check_frozen(model, freeze(model, (3, 32, 48)), torch.randn(2, 3, 32, 48))


def test_in_front_of_a_sign_it_becomes_a_threshold(moved, check_frozen):
    model = moved(ResNet((1,), 4, width=0.125, stem="small", shortcut="block", activation=RPReLU))
    program = freeze(model, (3, 12, 12))
    check_frozen(model, program, torch.randn(2, 3, 12, 12))
    by_name = {step.name: step for step in program.steps}
    assert by_name[by_name["stages.0.0.unit2.conv.sign"].inputs[0]].op == "binary_conv2d"


FORMATS = {
    "packed": (save_packed, PackedEngine, packed_signs),
    "openvino": (save_openvino, OpenVINOEngine, openvino_signs),
    "onnx": (save_onnx, OnnxEngine, onnx_signs),
}


@pytest.mark.parametrize(("save", "engine", "signs_of"), FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_networks_answers(moved, tmp_path, save, engine, signs_of):
    # no real convolution, whose sums each engine rounds in its own order
    blocks = [BinaryBlock(6, 6, 1, style, activation=RPReLU) for style in ("conv", "block", "conv")]
    first, last = BinaryConv2d(3, 6, 1), [nn.Flatten(), BinaryLinear(384, 2)]
    model = moved(nn.Sequential(nn.BatchNorm2d(3), first, RPReLU(6), *blocks, *last), falling=True)
    images = torch.randn(3, 3, 8, 8)
    seen = {}
    for name, layer in named_binary_layers(model):
        layer.register_forward_pre_hook(lambda m, x, name=name: seen.update({f"{name}.sign": (x[0] >= 0).numpy()}))
    with torch.no_grad():
        expected = model(images).numpy()
    for _, layer in named_binary_layers(model):
        layer._forward_pre_hooks.clear()
    file = save(freeze(model, (3, 8, 8)), MANIFEST, tmp_path)
    signs = signs_of(file)(images.numpy())
    assert signs.keys() == seen.keys() and len(seen) == 8
    for name, sign in seen.items():
        np.testing.assert_array_equal(signs[name], sign, name)
    np.testing.assert_allclose(engine(file)(images.numpy()), expected, rtol=1e-6, atol=1e-5)
