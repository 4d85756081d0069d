"""Whole networks, frozen."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from bnnlight.backbones import ResNet, ResNet18, StackedHourglass
from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.nn import Holistic, Tucker, convert


@pytest.mark.parametrize("latent", [Tucker, Holistic])
@pytest.mark.parametrize("shortcut", ["conv", "block"])
@pytest.mark.parametrize("stem", ["imagenet", "light", "small", "half"])
def test_resnet18(stem, shortcut, latent, randomized, check_frozen):
    size = 64 if stem in ("imagenet", "light") else 20
    model = randomized(ResNet18(num_classes=5, width=0.125, stem=stem, shortcut=shortcut, latent=latent))
    program = freeze(model, (3, size, size))
    check_frozen(model, program, torch.randn(2, 3, size, size))
    binary = [step.settings["shape"] for step in program.binary_steps]
    assert len(binary) == 16
    # a sign has a batch norm behind it only where the stem's goes on along the shortcut
    by_name = {step.name: step for step in program.steps}
    sources = {by_name[step.inputs[0]].op for step in program.steps if step.op == "binarize"}
    assert sources <= {"add", "affine", "max_pool2d", "binary_conv2d"}


@pytest.mark.parametrize(("height", "width"), [(17, 23), (9, 10), (8, 8), (5, 4)])
def test_odd_sizes(height, width, randomized, check_frozen):
    model = randomized(ResNet((1, 1, 1), num_classes=4, in_channels=1, width=0.11, stem="small", padding_value=-1))
    check_frozen(model, freeze(model, (1, height, width)), torch.randn(3, 1, height, width))


@pytest.mark.parametrize("scale", ["none", "analytic", "channel", "spatial"])
def test_scales_of_a_network(scale, randomized, check_frozen):
    model = randomized(ResNet((1, 1), num_classes=4, width=0.1, stem="half", scale=scale, image_size=18))
    check_frozen(model, freeze(model, (3, 18, 18)), torch.randn(2, 3, 18, 18))


@pytest.mark.parametrize(("stacks", "heads"), [(1, 2), (2, 1), (2, 3)])
def test_hourglass(stacks, heads, randomized, check_frozen):
    model = randomized(StackedHourglass(num_joints=3, features=16, stacks=stacks, depth=2, heads=heads))
    program = freeze(model, (3, 32, 48))
    x = torch.randn(2, 3, 32, 48)
    check_frozen(model, program, x)
    assert FrozenNetwork(program)(x).shape == (2, stacks, 3, 8, 12)


def test_hourglass_of_a_wrong_size_says_so(check_one_line):
    with pytest.raises(ValueError) as error:
        freeze(StackedHourglass(features=16, depth=2), (3, 30, 32))
    check_one_line(error, "StackedHourglass", "3×30×32", "multiples of 16")


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("vgg11_bn", 224), ("mobilenet_v2", 64), ("mnasnet0_5", 64)]
)
def test_converted_torchvision_networks(name, size, randomized, check_frozen):
    torch.manual_seed(3)
    model = torchvision.models.get_model(name, num_classes=4)
    if name == "vgg11_bn":
        # a fifth of its memory: what matters is its pool to 7×7 on a map of 7×7
        model.classifier = nn.Sequential(nn.Linear(512 * 49, 8), nn.ReLU(True), nn.Dropout(), nn.Linear(8, 4))
    randomized(convert(model))
    program = freeze(model, (3, size, size))
    check_frozen(model, program, torch.randn(1, 3, size, size))
    if name == "vgg11_bn":
        assert "mean2d" not in [step.op for step in program.steps]


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("squeezenet1_1", {"concat"}),
        ("googlenet", {"concat"}),
        ("densenet121", {"concat"}),
        ("efficientnet_b0", {"multiply", "silu", "sigmoid"}),
        ("mobilenet_v3_small", {"multiply", "hardswish", "hardsigmoid"}),
        ("shufflenet_v2_x0_5", {"slice_channels", "shuffle_channels"}),
    ],
)
def test_more_converted_torchvision_networks(name, operations, randomized, check_frozen):
    model = torchvision.models.get_model(name, num_classes=4, weights=None)
    program = freeze(randomized(convert(model)), (3, 64, 64))
    assert operations <= {step.op for step in program.steps}
    check_frozen(model, program, torch.randn(1, 3, 64, 64))


def test_what_of_a_network_cannot_be_shipped_is_named_in_a_line(check_one_line):
    model = convert(torchvision.models.get_model("convnext_tiny", num_classes=4, weights=None))
    with pytest.raises(ValueError) as error:
        freeze(model.eval(), (3, 64, 64))
    norms = "features.1.0.block.2, features.1.1.block.2, features.1.2.block.2 and 15 more (LayerNorm)"
    check_one_line(error, "cannot be shipped", f"layers {norms}", "function permute in layers", "no operation for it")
    assert len(str(error.value)) < 600


def test_batches_of_any_size(randomized):
    model = randomized(ResNet((1, 1), num_classes=4, width=0.1, stem="small"))
    frozen = FrozenNetwork(freeze(model, (3, 10, 10)))
    x = torch.randn(5, 3, 10, 10)
    one_by_one = np.concatenate([frozen(x[i : i + 1]).numpy() for i in range(5)])
    np.testing.assert_allclose(frozen(x).numpy(), one_by_one, rtol=1e-5, atol=1e-5)
    assert frozen(x[:0]).shape == (0, 4)
