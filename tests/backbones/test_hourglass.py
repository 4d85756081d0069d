"""The hourglass against its definition, written out once more, and against counts made by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.backbones import HierarchicalBlock, Hourglass, StackedHourglass
from bnnlight.nn import Holistic, Matrix, Tucker, named_binary_layers, real_valued
from bnnlight.nn.summary import summarize

SMALL = {"num_joints": 5, "features": 32, "depth": 2}


def block_by_hand(x, block):
    outputs, y = [], x
    for unit in (block.unit1, block.unit2, block.unit3):
        y = unit(y)
        outputs.append(y)
    way_round = x
    if not isinstance(block.shortcut, nn.Identity):
        norm, activation, convolution = block.shortcut
        way_round = F.conv2d(F.prelu(norm(x), activation.weight), convolution.weight)
    return torch.cat(outputs, 1) + way_round


@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (8, 16), (16, 8)])
def test_block_concatenates_three_units_and_adds_the_shortcut(scramble, inputs, outputs):
    block = scramble(HierarchicalBlock(inputs, outputs)).eval()
    x = torch.randn(2, inputs, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(block(x), block_by_hand(x, block))
    sizes = [(unit.conv.in_channels, unit.conv.out_channels) for unit in (block.unit1, block.unit2, block.unit3)]
    assert sizes == [(inputs, outputs // 2), (outputs // 2, outputs // 4), (outputs // 4, outputs // 4)]


def test_block_of_equal_widths_has_an_identity_shortcut_and_others_a_real_one():
    assert isinstance(HierarchicalBlock(16, 16).shortcut, nn.Identity)
    assert [type(m) for m in HierarchicalBlock(8, 16).shortcut] == [nn.BatchNorm2d, nn.PReLU, nn.Conv2d]


def hourglass_by_hand(x, module):
    low = module.down(F.max_pool2d(x, 2))
    low = hourglass_by_hand(low, module.inner) if isinstance(module.inner, Hourglass) else module.inner(low)
    low = module.up(low)
    # nearest-neighbour up-sampling: each pixel becomes four
    low = low.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return module.across(x) + low


@pytest.mark.parametrize("depth", [1, 3])
def test_hourglass_against_its_definition(scramble, depth):
    hourglass = scramble(Hourglass(depth, 16)).eval()
    x = torch.randn(1, 16, 16, 8, dtype=torch.float64)
    torch.testing.assert_close(hourglass(x), hourglass_by_hand(x, hourglass))


def test_hourglass_sees_all_of_a_picture_at_its_depth(scramble):
    hourglass = scramble(Hourglass(4, 16)).eval()
    x = torch.randn(1, 16, 64, 64, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 0, 0] += 100
    assert (hourglass(x) != hourglass(changed))[:, :, 40:, 40:].any()


@pytest.mark.parametrize(("stacks", "size"), [(1, 64), (3, 32)])
def test_output_has_maps_for_every_stack_at_a_quarter_of_the_size(stacks, size):
    network = StackedHourglass(stacks=stacks, **SMALL)
    assert network(torch.zeros(2, 3, size, 2 * size)).shape == (2, stacks, 5, size // 4, size // 2)


def test_stacks_follow_each_other_through_both_merges(scramble):
    network = scramble(StackedHourglass(stacks=2, **SMALL)).eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    features = network.stem(x)
    first = network.necks[0](network.hourglasses[0](features))
    first_maps = network.heads[0](first)
    features = features + network.merge_features[0](first) + network.merge_maps[0](first_maps)
    second_maps = network.heads[1](network.necks[1](network.hourglasses[1](features)))
    torch.testing.assert_close(network(x), torch.stack((first_maps, second_maps), 1))


@pytest.mark.parametrize("heads", [1, 3])
def test_heads(heads):
    network = StackedHourglass(heads=heads, head_bias=-5.0, **SMALL)
    convolutions = [m for m in (*network.necks.modules(), *network.heads.modules()) if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == heads
    # at the start the answer is the bias nearly everywhere
    assert (network(torch.randn(2, 3, 32, 32)) + 5).abs().max() < 1


def test_the_papers_network_has_these_weights():
    # 14 blocks of 256 features behind the stem's 64 → 128 → 128 → 256; depth 4: 4 × (across, down, up) + inner + last
    def block(inputs, outputs):
        half, quarter = outputs // 2, outputs // 4
        return 9 * (inputs * half + half * quarter + quarter * quarter)

    expected = 14 * block(256, 256) + block(64, 128) + block(128, 128) + block(128, 256)
    found = summarize(StackedHourglass(), (3, 256, 256))
    assert found.total("num_binary") == expected == 6_100_992
    assert found.total("num_binary") / 8 <= 1.3e6
    shapes = {layer.shape for layer in found.layers if layer.num_binary and layer.name.startswith("hourglasses")}
    assert shapes == {(128, 256, 3, 3), (64, 128, 3, 3), (64, 64, 3, 3)}


@pytest.mark.parametrize("latent", [Matrix, Tucker, Holistic])
def test_latents_start_as_the_dense_network(latent):
    torch.manual_seed(0)
    dense = StackedHourglass(**SMALL)
    torch.manual_seed(0)
    other = StackedHourglass(latent=latent, **SMALL)
    for (name, a), (_, b) in zip(named_binary_layers(dense), named_binary_layers(other), strict=True):
        torch.testing.assert_close(a.latent(), b.latent(), atol=1e-5, rtol=1e-4, msg=name)
        torch.testing.assert_close(a.alpha(), b.alpha(), atol=1e-5, rtol=1e-4)


def test_holistic_has_three_groups_in_an_hourglass():
    network = StackedHourglass(latent=Holistic, num_joints=5, features=64, depth=2)
    inside = [layer for name, layer in named_binary_layers(network) if name.startswith("hourglasses")]
    assert {type(layer.latent).__name__ for layer in inside} == {"Holistic"}
    assert len({id(next(layer.latent.parameters())) for layer in inside}) == 3


def test_every_parameter_gets_a_gradient():
    network = StackedHourglass(stacks=2, latent=Tucker, **SMALL)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_real_twin_has_the_same_weights_and_no_sign():
    network = StackedHourglass(**SMALL)
    weights = [layer.latent().detach().clone() for _, layer in named_binary_layers(network)]
    assert real_valued(network) is network
    assert list(named_binary_layers(network)) == []
    convolutions = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    for found, expected in zip(convolutions, weights, strict=True):
        assert torch.equal(found, expected)
    x = torch.randn(2, 3, 32, 32)
    # without signs, twice the input of a unit's convolution is twice its output
    unit = network.hourglasses[0][1].unit1.conv
    inputs = torch.randn(1, 32, 4, 4)
    torch.testing.assert_close(unit(2 * inputs), 2 * unit(inputs))
    network(x).sum().backward()


def test_spatial_scale_needs_the_image_size():
    network = StackedHourglass(scale="spatial", image_size=32, **SMALL)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 5, 8, 8)
    with pytest.raises(ValueError, match="spatial"):
        StackedHourglass(scale="spatial", **SMALL)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"features": 40}, "features is 40: give a multiple of 16"),
        ({"features": 0}, "features is 0"),
        ({"stacks": 0}, "stacks is 0: give at least 1"),
        ({"depth": 0}, "depth is 0"),
        ({"heads": 0}, "heads is 0"),
        ({"num_joints": 0}, "num_joints is 0"),
    ],
)
def test_wrong_options(options, part):
    with pytest.raises(ValueError, match=part):
        StackedHourglass(**options)


def test_wrong_input_size_is_told_before_it_fails_inside():
    with pytest.raises(ValueError, match="an input of 40×32 px: sides must be multiples of 16"):
        StackedHourglass(**SMALL)(torch.zeros(1, 3, 32, 40))


def test_block_of_odd_width():
    with pytest.raises(ValueError, match="multiple of 4"):
        HierarchicalBlock(8, 10)
