"""Stems against their definitions, written out once more, and their multiply-adds counted by hand and by torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bnnlight.backbones import ResNet, ResNet18, StackedHourglass
from bnnlight.backbones.stems import hourglass_stem, resnet_stem
from bnnlight.nn import Tucker
from bnnlight.nn.summary import summarize

# positions × window × inputs × outputs at 224×224 px
SEVEN = 112**2 * 49 * 3 * 64
LIGHT = 112**2 * (25 * 3 * 10 + 10 * 64)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        (resnet_stem("imagenet", 3, 64), SEVEN),
        (resnet_stem("light", 3, 64), LIGHT),
        (hourglass_stem("ordinary", 64), SEVEN),
        (hourglass_stem("light", 64), LIGHT),
    ],
    ids=["imagenet", "light", "hourglass", "light hourglass"],
)
def test_multiply_adds(stem, expected):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        stem(torch.zeros(1, 3, 224, 224))
    # torch counts a multiplication and an addition each
    assert counter.get_total_flops() == 2 * expected


def test_the_summary_counts_them_too():
    def stem(network, size, *names):
        layers = summarize(network, (3, size, size)).layers
        return sum(layer.num_real_macs for layer in layers if layer.name in names)

    assert stem(ResNet18(), 224, "stem.0") == SEVEN == 118_013_952
    assert stem(ResNet18(stem="light"), 224, "stem.0", "stem.1") == LIGHT < 20e6
    # at 256 px, of which hourglasses take multiples
    assert stem(StackedHourglass(stem="light"), 256, "stem.0", "stem.1") * 224**2 == LIGHT * 256**2


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (224, 224)])
def test_a_light_stem_gives_the_size_and_channels_of_the_ordinary_one(size):
    x = torch.randn(2, 1, *size)
    light, ordinary = (resnet_stem(kind, 1, 10).eval()(x).shape for kind in ("light", "imagenet"))
    assert light == ordinary == (2, 10, -(-size[0] // 4), -(-size[1] // 4))
    x = torch.randn(2, 3, *size)
    light, ordinary = (hourglass_stem(kind, 12).eval()(x).shape for kind in ("light", "ordinary"))
    assert light == ordinary == (2, 12, -(-size[0] // 2), -(-size[1] // 2))


def normalized(x, norm):
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (x - norm.running_mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def through_ten(x, first, last, norm):
    assert first.weight.shape == (10, 3, 5, 5) and last.weight.shape[1:] == (10, 1, 1)
    # both together are one convolution
    weight = torch.einsum("oh,hikl->oikl", last.weight[:, :, 0, 0], first.weight)
    return normalized(F.conv2d(F.pad(x, [2] * 4), weight, stride=2), norm).clamp(min=0)


def test_light_stems_are_their_definition(scramble):
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    stem = scramble(ResNet((1,), 5, width=0.25, stem="light").stem).eval()
    # the largest of the nine around each second pixel; behind the ReLU nothing is below 0
    y = F.pad(through_ten(x, *stem[:3]), [1] * 4).unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))
    torch.testing.assert_close(stem(x), y)
    hourglass = scramble(StackedHourglass(num_joints=2, features=64, depth=1, stem="light")).eval()
    torch.testing.assert_close(hourglass.stem[:4](x), through_ten(x, *hourglass.stem[:3]))
    assert hourglass(x).shape == (2, 1, 2, 4, 6)


@pytest.mark.parametrize("lean", [False, True])
def test_every_parameter_of_a_light_network_gets_a_gradient(lean):
    residual = ResNet((1, 1), 4, width=0.125, stem="light", latent=Tucker, lean=lean)
    hourglass = StackedHourglass(num_joints=2, features=16, depth=1, stem="light", lean=lean)
    for network in (residual, hourglass):
        network(torch.randn(4, 3, 32, 32)).square().sum().backward()
        for name, parameter in network.named_parameters():
            if name.startswith("stem"):
                assert parameter.grad is not None and parameter.grad.isfinite().all(), name
                assert parameter.grad.abs().sum() > 0, name


def test_a_light_stem_learns():
    # which of two kinds of stripes a picture has: only the stem sees them at this size
    torch.manual_seed(0)
    network = nn.Sequential(resnet_stem("light", 1, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    stripes = torch.tensor([1.0, -1.0]).repeat(8)
    pictures = torch.stack([stripes.expand(16, 16), stripes.view(-1, 1).expand(16, 16)])[:, None].repeat(8, 1, 1, 1)
    pictures = pictures * (1 + 0.1 * torch.randn(16, 1, 1, 1)) + 0.1 * torch.randn(16, 1, 16, 16)
    labels = torch.arange(2).repeat(8)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(30):
        loss = F.cross_entropy(network(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network(pictures).argmax(1) == labels).all() and loss < 0.1


def test_a_narrow_stem_has_no_more_channels_between():
    stem = resnet_stem("light", 3, 4)
    assert stem[0].out_channels == 4 and stem.eval()(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 2, 2)


def test_an_unknown_stem_is_told_in_one_line(check_one_line):
    for make, kinds in (
        (lambda: ResNet18(stem="heavy"), "imagenet, light, small or half"),
        (lambda: StackedHourglass(stem="heavy"), "ordinary or light"),
    ):
        with pytest.raises(ValueError) as error:
            make()
        check_one_line(error, "unknown stem 'heavy'", kinds)
