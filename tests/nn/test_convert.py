import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from bnnlight.nn import (
    Dense,
    Holistic,
    Matrix,
    Tucker,
    convert,
    named_binary_layers,
)


def vgg11():
    # torchvision's vgg11 with a smaller classifier: its own one has a hundred million weights
    layers = make_layers(cfgs["A"])
    return nn.Sequential(layers, nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))


def densenet():
    return torchvision.models.DenseNet(growth_rate=8, block_config=(2, 2, 2), num_init_features=16, num_classes=10)


# network, path of the first convolution, number of convolutions that become binary
NETWORKS = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), "conv1", 16),  # 20 less the first, 3 shortcuts
    "vgg11": (vgg11, "0.0", 7),  # 8 less the first
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25), "features.0.0", 51),
    "densenet": (densenet, "features.conv0", 14),  # 3 blocks × 2 layers × 2, and 2 transitions
    # 8 fire modules of 3; the first convolution and the last, which is the classifier, stay real
    "squeezenet": (lambda: torchvision.models.squeezenet1_1(num_classes=10), "features.0", 24),
}
each_network = pytest.mark.parametrize(("make", "first", "num_binary"), NETWORKS.values(), ids=NETWORKS)


@each_network
def test_a_torchvision_network_is_converted_from_its_own_weights(make, first, num_binary):
    original = make()
    with torch.no_grad():
        for module in original.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                module.bias.normal_()
    model = convert(copy.deepcopy(original))
    layers = dict(named_binary_layers(model))
    assert len(layers) == num_binary
    for name, layer in layers.items():
        conv = original.get_submodule(name.removesuffix(".conv"))
        assert torch.equal(layer.latent(), conv.weight)
        torch.testing.assert_close(layer.scale.alpha, conv.weight.abs().mean((1, 2, 3)))
        assert (layer.bias is None) == (conv.bias is None)
        assert conv.bias is None or torch.equal(layer.bias, conv.bias)
        geometry = "stride", "padding", "dilation", "groups"
        assert [getattr(layer, key) for key in geometry] == [getattr(conv, key) for key in geometry]
    real = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert first in real
    # the last layer with weights, and all shortcuts, are the original ones
    assert list(real)[-1] == [n for n, m in original.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)][-1]
    assert all(torch.equal(m.weight, original.get_submodule(n).weight) for n, m in real.items())
    shortcuts = [n for n, m in original.named_modules() if "downsample" in n and isinstance(m, nn.Conv2d)]
    assert set(shortcuts) <= set(real)


@each_network
def test_a_converted_network_trains_and_its_binary_inputs_have_both_signs(make, first, num_binary):
    model = convert(make(), Matrix)
    shares = []
    for _, layer in named_binary_layers(model):
        # measured where the sign is taken; behind a ReLU alone every share would be 1
        layer.register_forward_pre_hook(lambda module, inputs: shares.append((inputs[0] >= 0).float().mean()))
    y = model(torch.randn(4, 3, 48, 48))
    assert y.shape == (4, 10)
    y.square().sum().backward()
    assert len(shares) == num_binary
    assert min(shares) > 0.05 and max(shares) < 0.95
    for path, layer in named_binary_layers(model):
        for name, parameter in layer.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"{path}.{name}"


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2))


@pytest.mark.parametrize("latent", [Dense, Tucker, lambda w: Tucker(w, start="identity"), Holistic])
@pytest.mark.parametrize("scale", ["none", "analytic", "channel"])
def test_a_converted_layer_computes_norm_sign_convolution_alpha_bias(latent, scale):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 2, 1)).double().eval()
    weight, bias = model[1].weight.detach().clone(), model[1].bias.detach().clone()
    convert(model, latent, scale)
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    norm = model[1].norm
    with torch.no_grad():
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.normal_(), norm.bias.normal_()
        shape = (1, -1, 1, 1)
        u = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
        u = u * norm.weight.view(shape) + norm.bias.view(shape)
        inputs, signs = (torch.where(t >= 0, 1.0, -1.0).double() for t in (u, weight))
        alpha = torch.ones(6).double() if scale == "none" else weight.abs().mean((1, 2, 3))
        expected = nn.functional.conv2d(inputs, signs, padding=1) * alpha.view(shape) + bias.view(shape)
        torch.testing.assert_close(model[1](x), expected)


def test_options_reach_the_layers():
    model = convert(small(), activation_gradient="polynomial", weight_gradient="identity", padding_value=-1)
    layer = model[2].conv
    assert (layer.activation_gradient, layer.weight_gradient, layer.padding_value) == ("polynomial", "identity", -1)


def names(model):
    return [name for name, _ in named_binary_layers(model)]


def test_kept_paths_are_shell_patterns_and_replace_the_default():
    make = lambda: torchvision.models.resnet18(num_classes=2)  # noqa: E731
    assert not any(n.startswith("layer3") for n in names(convert(make(), keep=("layer3*",))))
    assert "layer2.0.downsample.0.conv" in names(convert(make(), keep=()))


@pytest.mark.parametrize(("padding", "expected"), [("valid", (0, 0)), ("same", (2, 1))])
def test_named_paddings_give_the_same_size(padding, expected):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, (5, 3), padding=padding), nn.Conv2d(4, 4, 1))
    shape = model(torch.randn(1, 3, 12, 12)).shape
    convert(model)
    assert model[1].conv.padding == expected
    assert model(torch.randn(1, 3, 12, 12)).shape == shape


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(3, 2)),
        nn.Conv2d(3, 3, 3),
        nn.Sequential(),
    ],
)
def test_nothing_left_to_convert_is_an_error(model):
    with pytest.raises(ValueError, match=f"{type(model).__name__} has no convolution left"):
        convert(model)


def test_converting_twice_is_an_error_and_not_a_second_norm():
    model = convert(small())
    with pytest.raises(ValueError, match="no convolution left"):
        convert(model)


def test_needs_nothing_newer_than_the_oldest_supported_torch(monkeypatch):
    # Module.set_submodule came with torch 2.5
    monkeypatch.delattr(nn.Module, "set_submodule", raising=False)
    assert names(convert(small())) == ["2.conv"]
