import copy

import pytest
import torch
from torch import nn

from bnnlight.nn import (
    CP,
    BinaryConv2d,
    BinaryLinear,
    Dense,
    Holistic,
    Matrix,
    Rotated,
    TensorTrain,
    Tucker,
    factorize,
    make_spatial,
    named_binary_layers,
    restart_alpha,
)


def network(scale="channel"):
    return nn.Sequential(
        BinaryConv2d(3, 4, 3, scale=scale),
        nn.Sequential(BinaryConv2d(4, 4, 3, scale=scale), BinaryConv2d(4, 4, 3, scale=scale)),
        nn.Flatten(),
        BinaryLinear(64, 5, scale=scale),
    )


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic, CP, TensorTrain, Rotated])
def test_full_rank_keeps_weights_and_alpha(latent):
    model = network()
    layers = dict(named_binary_layers(model))
    for layer in layers.values():
        nn.init.normal_(layer.scale.alpha)
    before = {n: (layer.latent().detach().clone(), layer.alpha().clone()) for n, layer in layers.items()}
    assert factorize(model, latent) is model
    assert dict(named_binary_layers(model)) == layers  # the layers are the same objects
    for name, layer in layers.items():
        weight, alpha = before[name]
        assert type(layer.latent) is latent
        assert float((layer.latent() - weight).detach().norm() / weight.norm()) <= 1e-5
        assert torch.equal(layer.alpha(), alpha)


def test_a_factorized_latent_is_decomposed_again_from_its_present_weight():
    layer = BinaryConv2d(6, 8, 3, latent=Matrix)
    with torch.no_grad():
        layer.latent.V.normal_()  # as if trained
    weight = layer.latent().detach().clone()
    for latent in (Tucker, Holistic, CP, Dense):
        factorize(layer, latent)
        torch.testing.assert_close(layer.latent().detach(), weight, rtol=1e-4, atol=1e-5)


def test_a_network_of_one_layer_is_named_in_errors():
    with pytest.raises(ValueError, match=r"layer \(the model itself\): rank 99"):
        factorize(BinaryLinear(3, 4), lambda w: Matrix(w, 99))


def test_error_leaves_every_latent_as_it_was():
    model = network()
    before = [layer.latent for _, layer in named_binary_layers(model)]
    with pytest.raises(ValueError, match=r"layer 3\b.*5×64 matrix"):
        factorize(model, lambda w: Matrix(w, 5 if w.ndim == 2 else 4, start="svd") if w.ndim == 4 else Matrix(w, 6))
    assert [layer.latent for _, layer in named_binary_layers(model)] == before


@pytest.mark.parametrize("latent", [Dense, lambda w: Matrix(w, 0.5, start="svd"), lambda w: Tucker(w, 0.5)])
def test_restarted_alpha_is_the_mean_absolute_weight_of_the_present_latent(latent):
    model = factorize(network(), latent)
    assert restart_alpha(model) is model
    for _, layer in named_binary_layers(model):
        torch.testing.assert_close(layer.alpha(), layer.latent().detach().abs().flatten(1).mean(1))
        assert layer.scale.alpha.requires_grad


def test_restarted_spatial_scale_is_one_at_every_position():
    model = make_spatial(nn.Sequential(BinaryConv2d(3, 4, 3), BinaryConv2d(4, 4, 3)), (3, 8, 9))
    for _, layer in named_binary_layers(model):
        for parameter in layer.scale.parameters():
            nn.init.normal_(parameter)
    restart_alpha(model)
    for (_, layer), size in zip(named_binary_layers(model), [(6, 7), (4, 5)], strict=True):
        expected = layer.latent().detach().abs().mean((1, 2, 3)).view(-1, 1, 1).expand(-1, *size)
        torch.testing.assert_close(layer.alpha(), expected)


@pytest.mark.parametrize("scale", ["none", "analytic"])
def test_restart_leaves_scales_without_parameters_alone(scale):
    model = restart_alpha(network(scale))
    assert {layer.scale.name for _, layer in named_binary_layers(model)} == {scale}


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic, CP, TensorTrain, Rotated])
def test_a_frozen_layer_stays_frozen(latent):
    model = network()
    model[1][0].latent.requires_grad_(False)  # has a neighbour of its shape, which trains
    factorize(model, latent)
    flags = {name: {p.requires_grad for p in layer.latent.parameters()} for name, layer in named_binary_layers(model)}
    assert flags == {"0": {True}, "1.0": {False}, "1.1": {True}, "3": {True}}


def test_a_latent_that_is_frozen_in_part_is_an_error_that_names_the_layer():
    model = factorize(network(), Tucker)
    model[1][1].latent.core.requires_grad_(False)
    with pytest.raises(ValueError, match=r"^layer 1\.1: only a part of its latent is frozen"):
        factorize(model, Matrix)


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic])
@pytest.mark.parametrize("whole", [True, False])
def test_a_shared_weight_stays_shared(latent, whole):
    model = network()
    first, second = model[1]
    if whole:
        second.latent = first.latent
    else:
        second.latent.weight = first.latent.weight
    weight = first.latent().detach().clone()
    factorize(model, latent)
    assert first.latent is second.latent
    torch.testing.assert_close(first.latent().detach(), weight, rtol=1e-5, atol=1e-6)
    assert getattr(first.latent, "num_layers", 1) == 1  # a stack of one weight, not of the same one twice


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("latent", [Matrix, Tucker, Holistic, CP, TensorTrain, Rotated])
def test_half_precision_is_decomposed_in_single_and_stored_as_it_was(latent, dtype):
    model = network().to(dtype)
    weights = {name: layer.latent().detach().clone() for name, layer in named_binary_layers(model)}
    expected = factorize(copy.deepcopy(model).float(), latent)
    factorize(model, latent)
    singles = dict(named_binary_layers(expected))
    for name, layer in named_binary_layers(model):
        assert {p.dtype for p in layer.parameters()} == {dtype}
        for key, parameter in layer.latent.named_parameters():
            assert torch.equal(parameter, singles[name].latent.get_parameter(key).to(dtype))
        error = (layer.latent() - weights[name]).detach().norm() / weights[name].norm()
        assert float(error) < 0.02


def test_a_weight_without_numbers_is_an_error_that_names_the_layer():
    with pytest.raises(ValueError, match=r"^layer 0: it is on the meta device"):
        factorize(network().to("meta"), Tucker)
