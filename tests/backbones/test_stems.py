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
RESNET = {
    "imagenet": 112**2 * 49 * 3 * 64,
    "light": 112**2 * 9 * 3 * 32 + 56**2 * 9 * 32 + 56**2 * 32 * 64,
}
HOURGLASS = {"ordinary": 112**2 * 49 * 3 * 64, "light": 112**2 * 9 * 3 * 16 + 112**2 * 16 * 64}


@pytest.mark.parametrize(
    ("stem", "expected"),
    [(resnet_stem(kind, 3, 64), number) for kind, number in RESNET.items()]
    + [(hourglass_stem(kind, 64), number) for kind, number in HOURGLASS.items()],
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

    assert stem(ResNet18(), 224, "stem.0") == RESNET["imagenet"] == 118_013_952
    assert stem(ResNet18(stem="light"), 224, "stem.0", "stem.3", "stem.5") == RESNET["light"] < 20e6
    # at 256 px, of which hourglasses take multiples
    found = stem(StackedHourglass(stem="light"), 256, "stem.0", "stem.3")
    assert found * 224**2 == HOURGLASS["light"] * 256**2 and HOURGLASS["light"] < 20e6


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


def test_the_light_stem_of_residual_networks_is_its_definition(scramble):
    stem = scramble(ResNet((1,), 5, width=0.25, stem="light").stem).eval()
    x = torch.randn(2, 3, 21, 30, dtype=torch.float64)
    first, last = stem[0].weight, stem[5].weight
    assert first.shape == (8, 3, 3, 3) and last.shape == (16, 8, 1, 1)
    y = normalized(F.conv2d(F.pad(x, [1] * 4), first, stride=2), stem[1]).clamp(min=0)
    # depth-wise: each channel by itself
    each = [F.conv2d(F.pad(y[:, [c]], [1] * 4), stem[3].weight[[c]], stride=2) for c in range(8)]
    y = normalized(torch.cat(each, 1), stem[4])
    y = normalized(torch.einsum("nchw,oc->nohw", y, last[:, :, 0, 0]), stem[6])
    torch.testing.assert_close(stem(x), y)


def test_the_light_stem_of_hourglasses_is_its_definition(scramble):
    network = scramble(StackedHourglass(num_joints=2, features=64, depth=1, stem="light")).eval()
    stem = network.stem[:6]
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    assert stem[0].weight.shape == (16, 3, 3, 3) and stem[3].weight.shape == (16, 16, 1, 1)
    y = normalized(F.conv2d(F.pad(x, [1] * 4), stem[0].weight, stride=2), stem[1]).clamp(min=0)
    y = normalized(torch.einsum("nchw,oc->nohw", y, stem[3].weight[:, :, 0, 0]), stem[4]).clamp(min=0)
    torch.testing.assert_close(stem(x), y)
    assert network(x).shape == (2, 1, 2, 4, 6)


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


def test_a_narrow_stem_keeps_what_the_picture_has():
    assert resnet_stem("light", 3, 1).eval()(torch.zeros(1, 3, 8, 8)).shape == (1, 1, 2, 2)
    between = {channels: hourglass_stem("light", channels)[0].out_channels for channels in (4, 16, 32, 64, 128)}
    assert between == {4: 4, 16: 16, 32: 16, 64: 16, 128: 32}


def test_an_unknown_stem_is_told_in_one_line(check_one_line):
    for make, kinds in (
        (lambda: ResNet18(stem="heavy"), "imagenet, light, small or half"),
        (lambda: StackedHourglass(stem="heavy"), "ordinary or light"),
    ):
        with pytest.raises(ValueError) as error:
            make()
        check_one_line(error, "unknown stem 'heavy'", kinds)
