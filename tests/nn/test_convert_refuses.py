"""Convolutions that `convert` cannot make binary are refused by their paths, and the network is as it was."""

import copy
import types

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import nn

from bnnlight.nn import SHORTCUTS, ConvertedConv2d, Holistic, Matrix, convert, named_binary_layers, plan_conversion


class Same(nn.Conv2d):
    """Pads as TensorFlow does."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Standardized(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight - weight.mean((1, 2, 3), keepdim=True), bias)


class Frozen(nn.Conv2d):
    def train(self, mode=True):
        return super().train(False)


class Scaled(nn.Conv2d):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.ones(1))


class Counting(nn.Conv2d):
    def __call__(self, *args, **options):
        return 2 * super().__call__(*args, **options)


class Weight(nn.Parameter):
    pass


def replaced_forward(conv):
    conv.forward = types.MethodType(lambda self, x: F.conv2d(x.abs(), self.weight, self.bias), conv)
    return conv


def weight_normalized(conv):
    return nn.utils.parametrizations.weight_norm(conv)


def pruned(conv):
    return torch.nn.utils.prune.l1_unstructured(conv, "weight", 0.5)


def old_spectral_norm(conv):
    return nn.utils.spectral_norm(conv)


def bias_parametrized(conv):
    nn.utils.parametrize.register_parametrization(conv, "bias", nn.Softplus())
    return conv


def gradient_hook(conv):
    conv.weight.register_hook(lambda gradient: 0 * gradient)
    return conv


def after_gradient_hook(conv):
    conv.weight.register_post_accumulate_grad_hook(lambda weight: None)
    return conv


def other_parameter(conv):
    conv.weight = Weight(conv.weight.detach())
    return conv


def with_child(conv):
    conv.adapter = nn.Identity()
    return conv


def with_buffer(conv):
    conv.register_buffer("mask", torch.ones(1))
    return conv


def on_meta(conv):
    return conv.to("meta")


REFUSED = {
    "forward": (lambda: Same(4, 4, 3), "Same with a forward of its own"),
    "what forward calls": (lambda: Standardized(4, 4, 3), "Standardized with a _conv_forward of its own"),
    "mode": (lambda: Frozen(4, 4, 3), "Frozen with a train of its own"),
    "call": (lambda: Counting(4, 4, 3), "Counting with a __call__ of its own"),
    "parameter of its own": (lambda: Scaled(4, 4, 3), "holds 'gain' besides"),
    "forward of one module": (lambda: replaced_forward(nn.Conv2d(4, 4, 3)), "Conv2d with a forward of its own"),
    "weight norm": (lambda: weight_normalized(nn.Conv2d(4, 4, 3)), "weight or bias is computed"),
    "old spectral norm": (lambda: old_spectral_norm(nn.Conv2d(4, 4, 3)), "weight or bias is computed"),
    "pruned": (lambda: pruned(nn.Conv2d(4, 4, 3)), "weight or bias is computed"),
    "parametrized bias": (lambda: bias_parametrized(nn.Conv2d(4, 4, 3)), "weight or bias is computed"),
    "not there yet": (lambda: nn.LazyConv2d(4, 3), "no weights yet: run the network once"),
    "gradient hook": (lambda: gradient_hook(nn.Conv2d(4, 4, 3)), "hook on its gradient"),
    "hook behind the gradient": (lambda: after_gradient_hook(nn.Conv2d(4, 4, 3)), "hook on its gradient"),
    "other parameter": (lambda: other_parameter(nn.Conv2d(4, 4, 3)), "its weight is a Weight"),
    "child": (lambda: with_child(nn.Conv2d(4, 4, 3)), "holds 'adapter' besides"),
    "buffer": (lambda: with_buffer(nn.Conv2d(4, 4, 3)), "holds 'mask' besides"),
    "meta": (lambda: on_meta(nn.Conv2d(4, 4, 3)), "on the meta device"),
    "complex": (lambda: nn.Conv2d(4, 4, 3, dtype=torch.complex64), "its weight is torch.complex64"),
    "TorchScript": (lambda: torch.jit.script(nn.Conv2d(4, 4, 3)), "compiled by TorchScript"),
    "padding mode": (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode 'reflect'"),
    "uneven padding": (lambda: nn.Conv2d(4, 4, 4, padding="same"), r"padding 'same' is uneven for kernel \(4, 4\)"),
}


@pytest.mark.filterwarnings("ignore")  # torch calls TorchScript, lazy modules and old norms outdated
@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_by_path_and_left_real_on_request(make, reason, check_one_line):
    convolutions = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), make(), nn.Conv2d(4, 2, 1)]
    first, second, odd, last = convolutions
    model = nn.Sequential(first, nn.Sequential(second), odd, last)
    options = {"keep_first": False, "keep_last": False}
    with pytest.raises(ValueError, match=rf"^layer 2: .*{reason}.*`keep`") as error:
        convert(model, **options)
    check_one_line(error)
    assert [type(m) for m in model.modules() if isinstance(m, ConvertedConv2d)] == []
    plan = plan_conversion(model, **options)
    assert list(plan.refused) == ["2"] and plan.binary == ("0", "1.0", "3")
    convert(model, **options, keep=[*SHORTCUTS, *plan.refused])
    assert [name for name, _ in named_binary_layers(model)] == ["0.conv", "1.0.conv", "3.conv"]
    assert model[2] is convolutions[2]


def test_many_are_counted_and_all_in_the_plan():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *(Same(4, 4, 3) for _ in range(5)), Scaled(4, 4, 1), nn.Conv2d(4, 4, 1))
    with pytest.raises(ValueError, match=r"^layers 1, 2, 3 and 2 more: it is a Same .*; layer 6: it holds 'gain'"):
        convert(model)
    assert list(plan_conversion(model).refused) == ["1", "2", "3", "4", "5", "6"]


def test_a_subclass_that_computes_the_same_is_converted():
    class Three(nn.Conv2d):
        """As plain as a function that makes a convolution."""

        def __init__(self, channels):
            super().__init__(channels, channels, 3, padding=1)
            self.level = 7

        def extra_repr(self):
            return "three"

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Three(4), nn.Conv2d(4, 2, 1))
    convert(model)
    assert type(model[1]) is ConvertedConv2d and model[1].level == 7


def tied(first, second):
    first.weight = second.weight
    return first


class Autoencoder(nn.Module):
    """Its decoder is the encoder's transpose."""

    def __init__(self):
        super().__init__()
        self.stem, self.encode, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(4, 2, 1)
        self.decode = tied(nn.ConvTranspose2d(6, 4, 1), self.encode)

    def forward(self, x):
        return self.head(self.decode(self.encode(self.stem(x))))


def test_a_weight_that_a_real_layer_shares_is_refused():
    with pytest.raises(ValueError, match=r"^layer encode: it shares its weight with decode\.weight, which stays real"):
        convert(Autoencoder())
    model = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(4)))
    model[3].weight = nn.Parameter(model[1].weight.data)  # not the same parameter, and yet the same numbers
    with pytest.raises(ValueError, match=r"^layer 1: it shares its weight with 3\.weight, which stays real"):
        convert(model)


def test_a_weight_that_is_shared_in_another_shape_is_refused():
    model = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(3)), nn.Conv2d(1, 4, (1, 4)), nn.Conv2d(4, 4, 1))
    model[3].weight = nn.Parameter(model[1].weight.data.view(4, 1, 1, 4))
    with pytest.raises(ValueError, match=r"^layer 3: it shares its weight with 1, in another shape"):
        convert(model, keep_first=False, keep_last=False)


@pytest.mark.parametrize("latent", [lambda w: Matrix(w, 99), lambda w: Holistic(w, "x")])
def test_a_latent_that_cannot_be_made_leaves_the_network_as_it_was(latent):
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(4)))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="layer 1"):
        convert(model, latent)
    assert model.state_dict().keys() == before.keys()
    assert {type(layer) for layer in model} == {nn.Conv2d}


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("layer*", r"keep is 'layer\*': give a list"),
        (["2"], r"keep names '2', which is not a layer with weights: see plan_conversion"),
        (["1.*", "0"], r"keep names '0', which is not a layer with weights: '0\.\*' names those in it"),
    ],
)
def test_a_name_that_is_no_layer_is_an_error(keep, message):
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 4, 1), nn.ReLU())
    with pytest.raises(ValueError, match=message):
        convert(model, keep=keep)
