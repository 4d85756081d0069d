import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.backbones import BinaryBlock, BinaryUnit, HierarchicalBlock, ResNet, StackedHourglass
from bnnlight.nn import BinaryConv2d, RPReLU, named_binary_layers


def plus_minus(u):
    return torch.where(u >= 0, 1.0, -1.0).to(u.dtype)


def batch_norm(x, norm):
    """Batch norm from its definition, with the batch's statistics in training and the running ones else."""
    if norm.training:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    else:
        mean, variance = norm.running_mean.view(1, -1, 1, 1), norm.running_var.view(1, -1, 1, 1)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def unit_by_hand(x, unit, stride):
    y = plus_minus(batch_norm(x, unit.norm))
    weight = unit.conv.latent.weight
    y = F.conv2d(y, plus_minus(weight), stride=stride, padding=1) * unit.conv.scale.alpha.view(1, -1, 1, 1)
    slope = unit.activation.weight.view(1, -1, 1, 1)
    return y.clamp_min(0) + slope * y.clamp_max(0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "stride"), [((3, 5), 1), ((6, 4), 2)])
def test_unit_is_norm_sign_convolution_alpha_prelu(scramble, channels, stride, training):
    unit = scramble(BinaryUnit(*channels, stride)).train(training)
    x = torch.randn(2, channels[0], 7, 6, dtype=torch.float64)
    torch.testing.assert_close(unit(x), unit_by_hand(x, unit, stride))


def test_prelu_has_one_slope_for_each_channel_that_it_sees():
    # sized for the block's input it would fail, or work by luck where the two are equal
    assert BinaryUnit(3, 5).activation.weight.shape == (5,)


class Doubled(nn.PReLU):
    """Computes something else than the class that it is of."""

    def forward(self, x):
        return 2 * super().forward(x)


def activated(y, activation):
    if isinstance(activation, nn.Identity):
        return y
    if isinstance(activation, RPReLU):
        gamma, zeta = activation.gamma.view(-1, 1, 1), activation.zeta.view(-1, 1, 1)
        y, slope = y - gamma, activation.slope.view(-1, 1, 1)
        return torch.where(y > 0, y, slope * y) + zeta
    if isinstance(activation, nn.Hardtanh):
        return y.clamp(-1, 1)
    slope = activation.weight.view(-1, 1, 1)
    return (2 if isinstance(activation, Doubled) else 1) * torch.where(y > 0, y, slope * y)


ACTIVATIONS = {
    "identity": nn.Identity,
    "RPReLU": RPReLU,
    "PReLU of one slope": lambda channels: nn.PReLU(),
    "a subclass of PReLU": Doubled,
    "Hardtanh": lambda channels: nn.Hardtanh(),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_unit_with_another_activation(scramble, make, training):
    unit = scramble(BinaryUnit(3, 5, 2, activation=make)).train(training)
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    y = plus_minus(batch_norm(x, unit.norm))
    y = F.conv2d(y, plus_minus(unit.conv.latent.weight), stride=2, padding=1) * unit.conv.scale.alpha.view(-1, 1, 1)
    torch.testing.assert_close(unit(x), activated(y, unit.activation))


def test_a_prelu_is_computed_with_the_convolution_and_others_are_not(monkeypatch):
    slopes = []
    forward = BinaryConv2d.forward
    monkeypatch.setattr(BinaryConv2d, "forward", lambda self, x, slope=None: slopes.append(slope) or forward(self, x))
    x = torch.randn(2, 3, 5, 5)
    units = [BinaryUnit(3, 4), BinaryUnit(3, 4, activation=RPReLU), BinaryUnit(3, 4, activation=Doubled)]
    for unit in units:
        unit(x)
    assert slopes[0] is units[0].activation.weight and slopes[1:] == [None, None]


NETWORKS = {
    "BinaryBlock": lambda **options: BinaryBlock(4, 8, 2, "conv", **options),
    "HierarchicalBlock": lambda **options: HierarchicalBlock(8, 16, **options),
    "ResNet": lambda **options: ResNet((1, 2), 5, width=0.125, stem="small", **options),
    "StackedHourglass": lambda **options: StackedHourglass(3, 16, stacks=2, depth=1, **options),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_activations_of_all_units_are_what_was_asked_for_and_of_their_channels(make):
    network = make(activation=RPReLU)
    layers = dict(named_binary_layers(network))
    for name, layer in layers.items():
        activation = network.get_submodule(name.removesuffix("conv") + "activation")
        assert type(activation) is RPReLU and len(activation.gamma) == layer.out_channels
    assert sum(isinstance(m, RPReLU) for m in network.modules()) == len(layers) > 1


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_prelu_is_the_default_with_the_names_and_numbers_it_always_had(make):
    states = []
    for options in ({}, {"activation": nn.PReLU}):
        torch.manual_seed(0)
        states.append(make(**options).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    units = [name.removesuffix("conv.latent.weight") for name in states[0] if name.endswith("conv.latent.weight")]
    assert [n for n in states[0] if ".activation." in n] == [f"{unit}activation.weight" for unit in units]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("style", ["conv", "block"])
def test_block_with_identity_shortcuts(scramble, style, training):
    block = scramble(BinaryBlock(4, 4, 1, style)).train(training)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    first = unit_by_hand(x, block.unit1, 1)
    if style == "conv":
        first = first + x
        expected = unit_by_hand(first, block.unit2, 1) + first
    else:
        expected = unit_by_hand(first, block.unit2, 1) + x
    torch.testing.assert_close(block(x), expected)


def shortcut_by_hand(x, shortcut, stride):
    _, conv, norm = shortcut
    if stride == 2:
        rows = [x[:, :, i : i + 2].mean(2) for i in range(0, x.shape[2], 2)]  # an odd last row stands alone
        x = torch.stack(rows, 2)
        x = torch.stack([x[..., i : i + 2].mean(3) for i in range(0, x.shape[3], 2)], 3)
    return batch_norm(torch.einsum("oi,nihw->nohw", conv.weight[:, :, 0, 0], x), norm)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("style", ["conv", "block"])
@pytest.mark.parametrize(
    ("channels", "stride", "size"), [((4, 8), 2, (6, 8)), ((4, 8), 2, (7, 5)), ((4, 6), 1, (5, 5))]
)
def test_block_that_changes_size_has_a_pooled_real_shortcut(scramble, channels, stride, size, style, training):
    block = scramble(BinaryBlock(*channels, stride, style)).train(training)
    x = torch.randn(2, channels[0], *size, dtype=torch.float64)
    way_round = shortcut_by_hand(x, block.shortcut, stride)
    first = unit_by_hand(x, block.unit1, stride)
    if style == "conv":
        first = first + way_round
        expected = unit_by_hand(first, block.unit2, 1) + first
    else:
        expected = unit_by_hand(first, block.unit2, 1) + way_round
    torch.testing.assert_close(block(x), expected)
    assert expected.shape == (2, channels[1], -(-size[0] // stride), -(-size[1] // stride))


def test_shortcut_convolution_is_real_and_without_bias():
    pool, conv, norm = BinaryBlock(4, 8, 2, "conv").shortcut
    assert isinstance(pool, nn.AvgPool2d) and isinstance(norm, nn.BatchNorm2d)
    assert type(conv) is nn.Conv2d and conv.kernel_size == (1, 1) and conv.bias is None


def test_options_reach_both_convolutions():
    block = BinaryBlock(
        4, 8, 2, "conv", scale="none", activation_gradient="swish", weight_gradient="identity", padding_value=1
    )
    for conv in (block.unit1.conv, block.unit2.conv):
        assert isinstance(conv, BinaryConv2d)
        assert (conv.activation_gradient, conv.weight_gradient) == ("swish", "identity")
        assert (conv.scale.name, conv.padding_value, conv.kernel_size, conv.bias) == ("none", 1, (3, 3), None)


def test_unknown_style_is_an_error():
    with pytest.raises(ValueError, match=r"'pair'.*block or conv"):
        BinaryBlock(4, 4, 1, "pair")
