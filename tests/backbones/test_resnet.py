from collections import Counter

import pytest
import torch
from torch import nn

from bnnlight.backbones import ResNet, ResNet18, ResNet34
from bnnlight.nn import CP, Dense, Holistic, Matrix, Rotated, TensorTrain, Tucker, named_binary_layers


def tiny(**options):
    return ResNet18(**{"num_classes": 10, "width": 0.125, "stem": "small"} | options)


def feature_sizes(model, images):
    sizes = []
    for part in (model.stem, *model.stages):
        part.register_forward_hook(lambda m, i, y: sizes.append(tuple(y.shape[1:])))
    return model(images).shape, sizes


@pytest.mark.parametrize("shortcut", ["conv", "block"])
@pytest.mark.parametrize(("stem", "divisor"), [("small", 1), ("half", 2), ("imagenet", 4), ("light", 4)])
def test_sizes_of_all_stems_and_styles(stem, divisor, shortcut):
    logits, sizes = feature_sizes(tiny(stem=stem, shortcut=shortcut, in_channels=1), torch.randn(2, 1, 64, 96))
    assert logits == (2, 10)
    h, w = 64 // divisor, 96 // divisor
    assert sizes == [(8, h, w), (8, h, w), (16, h // 2, w // 2), (32, h // 4, w // 4), (64, h // 8, w // 8)]


def test_imagenet_stem_on_an_imagenet_image():
    _, sizes = feature_sizes(tiny(stem="imagenet").eval(), torch.randn(1, 3, 224, 224))
    assert sizes[0] == (8, 56, 56) and sizes[-1] == (64, 7, 7)


@pytest.mark.parametrize(
    ("width", "channels"), [(1.0, [64, 128]), (0.25, [16, 32]), (1.5, [96, 192]), (1 / 64, [1, 2])]
)
def test_width_multiplies_all_channels(width, channels):
    model = ResNet((1, 1), width=width, num_classes=3, stem="small")
    assert [stage[-1].unit2.conv.out_channels for stage in model.stages] == channels
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 3)


# 3·3·in·out of every binary convolution, by stage
BINARY_18 = 4 * 36_864 + (73_728 + 3 * 147_456) + (294_912 + 3 * 589_824) + (1_179_648 + 3 * 2_359_296)
BINARY_34 = 6 * 36_864 + (73_728 + 7 * 147_456) + (294_912 + 11 * 589_824) + (1_179_648 + 5 * 2_359_296)
SHORTCUTS = (64 * 128 + 2 * 128) + (128 * 256 + 2 * 256) + (256 * 512 + 2 * 512)
# 7·7·3·64 and a batch norm; the last batch norm; weights and biases of the classifier
ENDS = (9_408 + 128) + 1_024 + (512_000 + 1_000)
# per convolution: batch norm's two vectors over its inputs, α and the PReLU's slopes over its outputs
VECTORS_18 = (
    4 * (2 * 64 + 2 * 64)
    + (2 * 64 + 2 * 128 + 3 * 4 * 128)
    + (2 * 128 + 2 * 256 + 3 * 4 * 256)
    + (2 * 256 + 2 * 512 + 3 * 4 * 512)
)
VECTORS_34 = (
    6 * (2 * 64 + 2 * 64)
    + (2 * 64 + 2 * 128 + 7 * 4 * 128)
    + (2 * 128 + 2 * 256 + 11 * 4 * 256)
    + (2 * 256 + 2 * 512 + 5 * 4 * 512)
)


@pytest.mark.parametrize(
    ("network", "num_layers", "num_binary", "num_vectors"),
    [(ResNet18, 16, BINARY_18, VECTORS_18), (ResNet34, 32, BINARY_34, VECTORS_34)],
)
def test_parameters_and_binary_layers_as_counted_by_hand(network, num_layers, num_binary, num_vectors):
    model = network()
    layers = [layer for _, layer in named_binary_layers(model)]
    assert len(layers) == num_layers
    assert sum(layer.weight_shape.numel() for layer in layers) == num_binary
    assert sum(p.numel() for p in model.parameters()) == num_binary + num_vectors + SHORTCUTS + ENDS


def test_stem_shortcuts_and_classifier_are_real_and_all_else_is_binary():
    model = tiny(stem="imagenet")
    real = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert real == ["stem.0", *(f"stages.{s}.0.shortcut.1" for s in (1, 2, 3)), "classifier"]
    binary = [name for name, _ in named_binary_layers(model)]
    assert binary == [f"stages.{s}.{b}.unit{u}.conv" for s in range(4) for b in (0, 1) for u in (1, 2)]
    assert all(layer.kernel_size == (3, 3) for _, layer in named_binary_layers(model))


@pytest.mark.parametrize(
    "latent", [Dense, Matrix, lambda w: Tucker(w, 0.5), lambda w: Holistic(w, 0.5), CP, TensorTrain, Rotated]
)
def test_every_parameter_gets_a_gradient(latent):
    model = ResNet((1, 1), num_classes=4, width=0.125, stem="small", latent=latent)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_output_is_the_classifier_on_averaged_normalized_features():
    model = tiny().eval()
    seen = []
    model.stages.register_forward_hook(lambda m, i, y: seen.append(y))
    logits = model(torch.randn(2, 3, 16, 16))
    norm = model.norm
    features = (seen[0] - norm.running_mean.view(1, -1, 1, 1)) / (norm.running_var.view(1, -1, 1, 1) + norm.eps).sqrt()
    expected = features.mean((2, 3)) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(logits, expected)


def test_holistic_groups_the_repeated_shapes():
    groups = Counter()
    shared = {}
    for _, layer in named_binary_layers(tiny(latent=Holistic)):
        out_channels, in_channels = layer.weight_shape[:2]
        groups[in_channels * 8, out_channels * 8] += 1
        shared.setdefault((in_channels * 8, out_channels * 8), set()).add(id(layer.latent.shared))
        assert layer.latent.num_layers == {8: 4}.get(out_channels, 3) if in_channels == out_channels else 1
    repeated = {(64, 64): 4, (128, 128): 3, (256, 256): 3, (512, 512): 3}
    assert groups == {**repeated, (64, 128): 1, (128, 256): 1, (256, 512): 1}
    assert all(len(tensors) == 1 for tensors in shared.values())


def test_holistic_parameters_are_not_counted_twice():
    dense, holistic = tiny(), tiny(latent=Holistic)
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    # layers, output channels and input channels of each group
    groups = (4, 8, 8), (1, 16, 8), (3, 16, 16), (1, 32, 16), (3, 32, 32), (1, 64, 32), (3, 64, 64)
    factors = sum(sum(size**2 for size in (*group, 3, 3)) for group in groups)
    # at full rank a core is as large as the dense weights, and the square factors come on top
    assert count(holistic) == count(dense) + factors


# below full rank W̃ is smaller than the dense weight it came from
@pytest.mark.parametrize("latent", [Dense, Tucker, lambda w: Tucker(w, 0.5), lambda w: Holistic(w, 0.5)])
def test_alpha_starts_as_the_mean_absolute_weight(latent):
    for _, layer in named_binary_layers(tiny(latent=latent)):
        torch.testing.assert_close(layer.alpha(), layer.latent().detach().abs().mean((1, 2, 3)))


def test_latent_of_every_form_starts_from_the_same_dense_weights():
    torch.manual_seed(5)
    dense = dict(named_binary_layers(tiny()))
    torch.manual_seed(5)
    for name, layer in named_binary_layers(tiny(latent=Holistic)):
        torch.testing.assert_close(layer.latent(), dense[name].latent(), rtol=1e-4, atol=1e-5)


def test_spatial_scale_has_each_layers_size():
    model = tiny(stem="half", scale="spatial", image_size=32)
    sizes = [layer.scale.output_size for _, layer in named_binary_layers(model)]
    assert sizes == [(16, 16)] * 4 + [(8, 8)] * 4 + [(4, 4)] * 4 + [(2, 2)] * 4
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "tiny"}, "'tiny'.*imagenet, light, small or half"),
        ({"shortcut": "none"}, "'none'.*block or conv"),
        ({"width": 0.001}, "width 0.001"),
        ({"scale": "spatial"}, "spatial.*shape"),
        ({"scale": "layer"}, "'layer'"),
        ({"padding_value": 3}, "padding_value is 3"),
        ({"latent": lambda w: Tucker(w, 16)}, r"layer stages\.0\.0\.unit1\.conv: rank 16 of output channels"),
    ],
)
def test_impossible_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize("blocks", [(), (2, 0)])
def test_stages_without_blocks_are_an_error(blocks):
    with pytest.raises(ValueError, match="at least one"):
        ResNet(blocks)
