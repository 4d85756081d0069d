"""Which parameters are stepped alike: by what they are, and not by their values."""

import functools
import math

import pytest
import torch
from torch import nn

from bnnlight.nn import (
    CP,
    BinaryConv2d,
    BinaryLinear,
    Dense,
    Holistic,
    Latent,
    Matrix,
    Rotated,
    RPReLU,
    TensorTrain,
    Tucker,
    factorize,
    named_binary_layers,
)
from bnnlight.optim import parameter_groups


def network(scale="channel", latent=Dense):
    model = nn.Sequential()
    model.stem = nn.Conv2d(3, 4, 3)
    model.norm = nn.BatchNorm2d(4)
    model.body = nn.Sequential(BinaryConv2d(4, 4, 3, scale=scale), nn.PReLU(4), BinaryConv2d(4, 4, 3, scale=scale))
    model.head = nn.Sequential(nn.Flatten(), BinaryLinear(4, 6, bias=True), nn.PReLU(), nn.Linear(6, 2))
    return factorize(model, latent)


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic, CP, TensorTrain, Rotated])
@pytest.mark.parametrize("scale", ["none", "analytic", "channel"])
def test_every_parameter_is_in_exactly_one_group(latent, scale):
    model = network(scale, latent)
    grouped = [p for group in parameter_groups(model) for p in group.parameters]
    assert len({id(p) for p in grouped}) == len(grouped)
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}


def test_weight_decay_is_for_real_weights_alone():
    model = network(latent=Tucker)
    decayed = [p for group in parameter_groups(model) if group.decay for p in group.parameters]
    assert {id(p) for p in decayed} == {id(model.stem.weight), id(model.head[3].weight)}


def test_groups_are_what_their_names_say():
    model = network()
    groups = {group.name: {id(p) for p in group.parameters} for group in parameter_groups(model)}
    binary = [layer for _, layer in named_binary_layers(model)]
    one_dimensional = [model.stem.bias, *model.norm.parameters(), model.body[1].weight, binary[2].bias]
    assert groups == {
        "latent": {id(layer.latent.weight) for layer in binary},
        "alpha": {id(layer.scale.alpha) for layer in binary},
        "norm": {id(p) for p in (*one_dimensional, model.head[2].weight, model.head[3].bias)},
        "weight": {id(model.stem.weight), id(model.head[3].weight)},
    }


@pytest.mark.parametrize("latent", [Matrix, Tucker, lambda w: Tucker(w, start="identity"), CP, TensorTrain, Rotated])
def test_each_factor_is_a_group_named_by_layer_and_factor(latent):
    # a core that takes the weight's place has its learning rate too, and is not a group latent
    model = network(latent=latent)
    expected = {
        f"latent/{path}/{name}": [parameter]
        for path, layer in named_binary_layers(model)
        for name, parameter in layer.latent.named_parameters()
    }
    groups = parameter_groups(model)
    found = {group.name: list(group.parameters) for group in groups if group.name.startswith("latent")}
    assert found.keys() == expected.keys()
    assert all(found[name][0] is expected[name][0] and len(found[name]) == 1 for name in expected)
    assert [group.name for group in groups] == ["weight", "norm", "alpha", *expected]


def test_what_layers_share_stands_under_the_first_of_them():
    names = [group.name for group in parameter_groups(network(latent=Holistic)) if "latent" in group.name]
    parts = ("core", *(f"factors.{mode}" for mode in range(5)))
    alone = ("core", *(f"factors.{mode}" for mode in range(3)))  # the linear layer: layers' mode, output, input
    assert names == [f"latent/body.0/shared.{p}" for p in parts] + [f"latent/head.1/shared.{p}" for p in alone]


def test_a_latent_that_two_layers_have_is_one():
    model = network(latent=Tucker)
    model.body[2].latent = model.body[0].latent
    names = [group.name for group in parameter_groups(model) if group.name.startswith("latent/body")]
    assert names == [f"latent/body.0/{name}" for name, _ in model.body[0].latent.named_parameters()]


def test_parameters_of_a_group_have_their_paths():
    model = network(latent=Tucker)
    named = dict(model.named_parameters())
    for group in parameter_groups(model):
        assert [named[name] for name in group.parameter_names] == list(group.parameters)


HALF = (
    functools.partial(Tucker, rank=0.5),
    functools.partial(CP, rank=0.5),
    functools.partial(TensorTrain, rank=0.5),
    functools.partial(Holistic, rank=0.5),
    Matrix,
    Rotated,
    Dense,
)


@pytest.mark.parametrize("latent", HALF)
def test_forty_seeds_have_the_same_groups_with_the_same_parameters_in_the_same_order(latent):
    def order(seed):
        torch.manual_seed(seed)
        layers = [BinaryConv2d(8, 8, 3, scale="channel") for _ in range(3)]
        model = factorize(nn.Sequential(nn.Conv2d(3, 8, 3), *layers, RPReLU(8)), latent)
        model.to(torch.float64 if seed % 2 else torch.float32)
        return [(group.name, group.parameter_names, group.decay) for group in parameter_groups(model, 0.1)]

    first = order(0)
    assert all(order(seed) == first for seed in range(1, 40))


def test_groups_do_not_depend_on_the_values_of_weights_and_rates():
    def groups(change):
        model = network(latent=Wild)
        for number, (_, layer) in enumerate(named_binary_layers(model)):
            layer.latent.lr_scales = dict.fromkeys(("a", "b"), change * number)
        return [(group.name, group.parameter_names) for group in parameter_groups(model)]

    assert groups(0.0) == groups(1.0) == groups(0.3)


class Wild(Latent):
    """W̃ = a b, whose rates are set from outside."""

    def __init__(self, weight):
        super().__init__(weight.shape)
        self.a, self.b = nn.Parameter(weight.detach().clone()), nn.Parameter(torch.ones(()))

    def forward(self):
        return self.a * self.b


def test_a_latent_without_a_rate_has_the_optimizers():
    assert {group.lr_scale for group in parameter_groups(network(latent=Wild))} == {1}


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_an_error(rate, check_one_line):
    with pytest.raises(ValueError) as error:
        parameter_groups(network(), alpha_lr=rate)
    check_one_line(error, f"alpha_lr is {rate}: give a finite number of at least 0")
    model = network(latent=Wild)
    model.body[2].latent.lr_scales = {"b": rate}
    with pytest.raises(ValueError) as error:
        parameter_groups(model)
    check_one_line(error, f"layer body.2: lr_scales['b'] is {rate}: give")


def test_frozen_parameters_are_in_no_group():
    model = network()
    model.stem.requires_grad_(False)
    model.body[0].latent.requires_grad_(False)
    grouped = {id(p) for group in parameter_groups(model) for p in group.parameters}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}
    listed = {id(p) for group in parameter_groups(model, frozen=True) for p in group.parameters}
    assert listed == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("latent", [Dense, Matrix, lambda w: Matrix(w, start="balanced"), Tucker, Holistic, CP])
def test_learning_rates_follow_the_latents_scales_to_two_digits(latent):
    model = network(latent=latent)
    rates = {id(p): group.lr_scale for group in parameter_groups(model) for p in group.parameters}
    for _, layer in named_binary_layers(model):
        for name, parameter in layer.latent.named_parameters():
            assert rates.pop(id(parameter), None) in (None, pytest.approx(layer.latent.lr_scales[name], rel=0.05))
    assert set(rates.values()) == {1.0}  # all that is not a latent


def test_learning_rate_of_alpha_is_as_asked():
    groups = {group.name: group.lr_scale for group in parameter_groups(network(), alpha_lr=0.25)}
    assert groups == {"latent": 1, "alpha": 0.25, "norm": 1, "weight": 1}


def test_spatial_positions_count_as_alpha():
    layer = BinaryConv2d(2, 3, 3, scale="spatial", output_size=(4, 4))
    groups = {group.name: len(group.parameters) for group in parameter_groups(layer)}
    assert groups == {"latent": 1, "alpha": 3}


def test_a_factor_with_one_dimension_is_a_latent_and_no_norm():
    # s of Matrix is a vector, as batch norm's parameters are
    layer = BinaryLinear(4, 4, latent=Matrix, scale="none")
    assert [group.name for group in parameter_groups(layer)] == ["latent/U", "latent/s", "latent/V"]


def test_a_frozen_factor_is_one_with_rate_zero():
    layer = BinaryLinear(4, 4, latent=lambda w: Tucker(w, factor_lr=0.0), scale="none")
    rates = {id(p): group.lr_scale for group in parameter_groups(layer) for p in group.parameters}
    assert [rates[id(f)] for f in layer.latent.factors] == [0, 0]
    assert rates[id(layer.latent.core)] == pytest.approx(1, rel=0.05)


def test_groups_hold_the_parameters_themselves():
    layer = BinaryLinear(4, 4)
    optimizer = torch.optim.SGD([{"params": list(g.parameters)} for g in parameter_groups(layer)], lr=1.0)
    before = layer.latent.weight.detach().clone()
    layer(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(layer.latent.weight, before)
