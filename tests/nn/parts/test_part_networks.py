"""Whole networks with parts: started from others, made real, counted."""

import copy

import pytest
import torch

from bnnlight.backbones import FixedPointResNet, ResNet
from bnnlight.nn import (
    Balanced,
    BinaryConv2d,
    BiRotated,
    LearnedPair,
    Normalized,
    Shifted,
    Standardized,
    Tucker,
    named_binary_layers,
    real_valued,
    set_stage,
    start_from,
)
from bnnlight.nn.summary import summarize

PARTS = {"weight_parts": [Standardized, BiRotated], "input_parts": [LearnedPair, Normalized]}


def network(**options):
    return ResNet((1, 1), 4, width=0.125, stem="small", **options)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_starts_from_a_network_without_parts_and_from_one_with_them(tmp_path):
    plain, real = network(), real_valued(network())
    trained = network(**PARTS)
    with torch.no_grad():
        for _, layer in named_binary_layers(trained):
            layer.input_parts[0].center.fill_(0.3)
            layer.weight_parts.renew(layer.weight, 1)
    for name, one in (("plain", plain), ("real", real), ("trained", trained)):
        torch.save(one.state_dict(), tmp_path / name)
    for name in ("plain", "real", "trained"):
        started = start_from(network(**PARTS), str(tmp_path / name), latent=Tucker)
        source = {"plain": plain, "real": real, "trained": trained}[name]
        for path, layer in named_binary_layers(started):
            weight = source.get_submodule(path).weight
            torch.testing.assert_close(layer.weight, weight, rtol=1e-4, atol=1e-5)
            pair, rotated = layer.input_parts[0], layer.weight_parts[1]
            assert float(pair.center) == pytest.approx(0.3 if name == "trained" else 0)
            assert torch.equal(rotated.left, torch.eye(len(rotated.left))) == (name != "trained")
    # and the other way round
    start_from(network(), str(tmp_path / "trained"))
    again = start_from(network(**PARTS), str(tmp_path / "trained"), latent=None)
    for name, value in again.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


def test_the_real_twin_has_the_latent_weights_and_no_parts():
    model = network(**PARTS)
    weights = {path: layer.weight.clone() for path, layer in named_binary_layers(model)}
    twin = real_valued(copy.deepcopy(model))
    assert all(torch.equal(twin.get_submodule(path).weight, weight) for path, weight in weights.items())
    assert not any("_parts" in name for name, _ in twin.named_modules())


def test_in_the_stage_real_the_balanced_network_is_that_of_its_weights():
    model = network(weight_parts=[Balanced]).eval()
    expected = network().eval()
    expected.load_state_dict(model.state_dict())
    for path, layer in named_binary_layers(expected):
        own = model.get_submodule(path)
        with torch.no_grad():
            layer.latent.weight.copy_(own.weight_parts(own.weight))
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(set_stage(model, "real")(x), set_stage(expected, "real")(x))
    torch.testing.assert_close(set_stage(model, "binary")(x), set_stage(expected, "binary")(x))


def test_the_summary_counts_what_parts_train_and_ship():
    plain, model = network(), network(weight_parts=[Standardized, BiRotated], input_parts=[Shifted])
    rows = zip(summarize(plain, (3, 16, 16)).layers, summarize(model, (3, 16, 16)).layers, strict=True)
    for before, row in rows:
        if row.latent:
            assert row.num_factors == before.num_factors + row.shape[0]  # an angle a filter
            assert row.num_real == before.num_real + row.shape[1]  # a shift a channel


def test_the_network_of_whole_numbers_takes_parts_of_weights():
    model = FixedPointResNet((1,), weight_parts=[Balanced])
    for _, layer in named_binary_layers(model):
        assert layer.binary_weight().flatten(1).sum(1).tolist() == [0] * layer.weight_shape[0]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("part", "shifts"), [(Shifted, 4), (LearnedPair, 1 + 5), (Normalized, 0)])
def test_summary_counts_what_ships_of_input_parts(part, shifts, bias):
    layer = BinaryConv2d(4, 5, 3, input_parts=[part], bias=bias)
    (row,) = summarize(torch.nn.Sequential(layer), (4, 8, 8)).layers
    # α, the threshold and one bias an output channel, which a pair of values is a part of
    own_bias = 5 if bias and part is not LearnedPair else 0
    assert row.num_real == 5 + shifts + own_bias
