"""Parts of binary layers, shipped: signs, thresholds, α and bias, and nothing else."""

from functools import partial

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
from bnnlight.deploy.proof.verify import observed
from bnnlight.nn import (
    Balanced,
    BinaryConv2d,
    BinaryLinear,
    BiRotated,
    Clamped,
    LearnedPair,
    Normalized,
    Shifted,
    Standardized,
    Tucker,
    factorize,
    named_binary_layers,
)

MANIFEST = Manifest("classification", "tests.Network", PictureInput(3, 8, (0.5,) * 3, (0.25,) * 3, 8), ("a", "b"))
PARTS = {
    "standardized": {"weight_parts": [Standardized]},
    "balanced": {"weight_parts": [Balanced]},
    "clamped": {"weight_parts": [partial(Standardized, deviation=2.8), Clamped]},
    "birotated": {"weight_parts": [Standardized, BiRotated]},
    "shifted": {"input_parts": [Shifted]},
    "pair": {"input_parts": [LearnedPair]},
    "normalized": {"input_parts": [Normalized]},
    "many": {"weight_parts": [Balanced, BiRotated, Clamped], "input_parts": [LearnedPair, Normalized]},
}
each_part = pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)


@pytest.fixture
def moved(randomized):
    """As `randomized`, with the parts' numbers as after some training."""

    def give(model):
        randomized(model)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, Shifted):
                    module.tau.normal_()
                if isinstance(module, LearnedPair):
                    module.distance.normal_(std=2)
                    module.center.normal_()
                if isinstance(module, BiRotated):
                    module.angle.uniform_(0, 3)
            for _, layer in named_binary_layers(model):
                if layer.weight_parts is not None:
                    layer.weight_parts.renew(layer.weight, 1)
        return model

    return give


@each_part
def test_networks_are_frozen_as_they_are(moved, check_frozen, parts):
    model = moved(ResNet((1, 1), 4, width=0.125, stem="small", latent=partial(Tucker, rank=0.5), **parts))
    check_frozen(model, freeze(model, (3, 18, 18)), torch.randn(3, 3, 18, 18))


def test_an_hourglass_too(moved, check_frozen):
    model = moved(StackedHourglass(num_joints=3, features=16, depth=1, scale="analytic", **PARTS["many"]))
    check_frozen(model, freeze(model, (3, 32, 48)), torch.randn(2, 3, 32, 48))


def test_a_shift_goes_into_the_threshold_and_a_pair_into_alpha_and_bias(moved):
    for parts, ops in (
        ({"input_parts": [Shifted]}, ["binarize", "binary_conv2d", "affine"]),
        ({"input_parts": [LearnedPair]}, ["binarize", "binary_conv2d", "affine", "affine"]),
    ):
        model = moved(nn.Sequential(BinaryConv2d(3, 4, 3, padding=1, **parts)))
        program = freeze(model, (3, 8, 8))
        assert [step.op for step in program.steps] == ops
        threshold = model[0].threshold().expand(3)
        np.testing.assert_array_equal(program.steps[0].tensors["threshold"], threshold.numpy())


FORMATS = {
    "packed": (save_packed, PackedEngine, packed_signs),
    "openvino": (save_openvino, OpenVINOEngine, openvino_signs),
    "onnx": (save_onnx, OnnxEngine, onnx_signs),
}


@each_part
@pytest.mark.parametrize(("save", "engine", "signs_of"), FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_networks_answers(moved, tmp_path, parts, save, engine, signs_of):
    # no real convolution, whose sums each engine rounds in its own order
    blocks = [BinaryBlock(6, 6, 1, style, **parts) for style in ("conv", "block")]
    first = BinaryConv2d(3, 6, 3, padding=1, padding_value=1, bias=True, **parts)
    last = [nn.Flatten(), BinaryLinear(384, 2, scale="none", **parts)]
    model = moved(factorize(nn.Sequential(nn.BatchNorm2d(3), first, *blocks, *last), Tucker))
    images = torch.randn(3, 3, 8, 8)
    seen = {}
    for name, layer in named_binary_layers(model):

        def look(layer, x, name=name):
            along = (1, -1, *[1] * (x[0].ndim - 2))
            seen[f"{name}.sign"] = (x[0] >= layer.threshold().view(along)).numpy()

        layer.register_forward_pre_hook(look)
    with torch.no_grad():
        expected = model(images).numpy()
    for _, layer in named_binary_layers(model):
        layer._forward_pre_hooks.clear()
    file = save(freeze(model, (3, 8, 8)), MANIFEST, tmp_path)
    signs = signs_of(file)(images.numpy())
    assert signs.keys() == seen.keys() and len(seen) == 6
    for name, sign in seen.items():
        np.testing.assert_array_equal(signs[name], sign, name)
    np.testing.assert_allclose(engine(file)(images.numpy()), expected, rtol=1e-6, atol=1e-4)
    # what the proof of an export compares with
    answer, proven = observed(model, images)
    np.testing.assert_array_equal(answer.numpy(), expected)
    assert proven.keys() == seen.keys() and all(np.array_equal(proven[name], seen[name]) for name in seen)
