"""Scales with one factor for each position, sized for a network's pictures."""

import pytest
import torch
import torchvision
from torch import nn

from bnnlight.nn import BinaryConv2d, convert, make_spatial, named_binary_layers


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2))


def test_spatial_scale_needs_the_inputs_shape():
    with pytest.raises(ValueError, match=r"spatial.*\(C, H, W\)"):
        convert(small(), scale="spatial")


def test_spatial_scale_has_each_layers_output_size():
    model = convert(torchvision.models.resnet18(num_classes=2), scale="spatial", input_shape=(3, 64, 96))
    sizes = {}
    for name, layer in named_binary_layers(model):
        layer.register_forward_hook(lambda m, i, y, name=name: sizes.__setitem__(name, tuple(y.shape[1:])))
    assert model(torch.randn(2, 3, 64, 96)).shape == (2, 2)
    for name, layer in named_binary_layers(model):
        assert (layer.scale.alpha.numel(), *(v.numel() for v in layer.scale.positions)) == sizes[name]
        torch.testing.assert_close(layer.scale.alpha, layer.latent().abs().mean((1, 2, 3)))
    assert sizes["layer1.0.conv1.conv"] == (64, 16, 24)
    with pytest.raises(ValueError, match="spatial"):
        model(torch.randn(2, 3, 64, 64))


def test_measuring_output_sizes_leaves_batch_norm_and_modes_alone():
    model = convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1)))
    model[1].eval()
    modes = {name: module.training for name, module in model.named_modules() if "scale" not in name}
    make_spatial(model, (3, 8, 8))
    assert {name: model.get_submodule(name).training for name in modes} == modes
    assert model[1].num_batches_tracked == 0
    assert not any(module._forward_hooks for module in model.modules())


def test_layer_that_does_not_run_is_an_error_that_names_it():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = BinaryConv2d(3, 4, 3), BinaryConv2d(3, 4, 3)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match=r"layer spare does not run on an input of shape \(3, 8, 8\)"):
        make_spatial(Unused(), (3, 8, 8))


def test_a_layer_that_runs_on_two_sizes_is_an_error_that_names_it():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = BinaryConv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.shared(x), self.shared(x[..., ::2, ::2])

    with pytest.raises(ValueError, match=r"layer shared gives outputs of sizes \[\(4, 4\), \(8, 8\)\]"):
        make_spatial(Pyramid(), (3, 8, 8))


def test_a_frozen_layer_gets_a_frozen_scale():
    model = nn.Sequential(*(BinaryConv2d(3, 3, 3, scale=scale) for scale in ("channel", "none", "channel")))
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    make_spatial(model, (3, 9, 9))
    assert [{p.requires_grad for p in layer.scale.parameters()} for layer in model] == [{False}, {False}, {True}]
