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


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic, CP, TensorTrain])
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
