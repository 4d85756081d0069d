"""What stands between a layer's input and its sign, against the papers' formulas computed another way."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnnlight.nn import (
    BinaryConv2d,
    BinaryLinear,
    LearnedPair,
    Normalized,
    Shifted,
    Tucker,
    make_spatial,
    set_stage,
)
from bnnlight.nn.compute.lean import recomputed
from bnnlight.nn.compute.relaxed import Mixed


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def straight_through(u):
    """sign(u) with the clipped gradient, in operations of torch's own."""
    near = u.clamp(-1, 1)
    return near + ((u >= 0) * 2.0 - 1 - near).detach()


def moved(layer):
    """The layer with parts that are not as at the start."""
    with torch.no_grad():
        for part in layer.input_parts:
            if isinstance(part, Shifted):
                part.tau.normal_()
            if isinstance(part, LearnedPair):
                part.distance.fill_(-1.3)  # whose size counts
                part.center.fill_(0.4)
        if layer.bias is not None:
            layer.bias.normal_()
    return layer


def by_hand(layer, x):
    """The output in operations of torch's own: the activations' values, padded, convolved with the weights' signs."""
    u, a, b = x, 1.0, 0.0
    for part in layer.input_parts:
        if isinstance(part, Shifted):
            u = u - part.tau.view(1, -1, 1, 1)
        elif isinstance(part, LearnedPair):
            a, b = part.distance.abs(), part.center
            u = (u - b) / a
        elif layer.training:
            u = u / (u.var((1, 2, 3), keepdim=True) + part.eps).sqrt()
    values = a * straight_through(u) + b
    # F.pad takes numbers alone, without gradient
    border = (b + a * layer.padding_value) * torch.ones(1, dtype=x.dtype)
    inside = F.pad(torch.ones_like(values), (1, 1, 1, 1))
    values = F.pad(values, (1, 1, 1, 1)) + (1 - inside) * border
    y = F.conv2d(values, straight_through(layer.latent()), None, layer.stride, 0, layer.dilation, layer.groups)
    alpha = layer.latent().flatten(1).abs().mean(1) if layer.scale.name == "analytic" else layer.scale(None)
    y = y if alpha is None else y * alpha.view(-1, 1, 1)
    return y if layer.bias is None else y + layer.bias.view(-1, 1, 1)


CHAINS = {
    "shifted": [Shifted],
    "pair": [LearnedPair],
    "normalized": [Normalized],
    # in whatever order they are named
    "normalized, pair": [Normalized, LearnedPair],
}
each_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
OPTIONS = {
    "plain": {},
    "no alpha": {"scale": "none"},
    "analytic, bias": {"scale": "analytic", "bias": True},
    "ones around": {"padding_value": 1, "bias": True},
    "groups, tucker": {"groups": 2, "padding_value": -1, "latent": Tucker},
}


@each_chain
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("lean", [False, True], ids=["plain", "lean"])
def test_a_layer_trains_as_by_hand_in_double_precision(chain, options, lean):
    layer = moved(BinaryConv2d(4, 6, 3, padding=1, input_parts=chain, **options))
    exact = copy.deepcopy(layer).double()
    x = (torch.randn(3, 4, 5, 5) + 0.3).requires_grad_()
    y = recomputed(layer, x, layer) if lean else layer(x)
    weighting = torch.linspace(-1, 1, y.numel()).view_as(y) + 0.2
    (y * weighting).sum().backward()
    x64 = x.detach().double().requires_grad_()
    y64 = by_hand(exact, x64)
    (y64 * weighting).sum().backward()
    torch.testing.assert_close(y.double(), y64, rtol=1e-5, atol=1e-5)
    for (name, found), expected in zip([("x", x), *layer.named_parameters()], [x64, *exact.parameters()], strict=True):
        assert (found.grad - expected.grad).norm() <= 2e-5 * expected.grad.norm(), name
    layer.eval(), exact.eval()
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), by_hand(exact, x64), rtol=1e-5, atol=1e-5)


def test_the_pair_has_the_gradients_of_its_paper():
    layer = moved(BinaryConv2d(2, 1, 1, scale="none", input_parts=[LearnedPair], activation_gradient="polynomial"))
    with torch.no_grad():
        layer.latent.weight.copy_(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
    x = torch.randn(4, 2, 3, 3, requires_grad=True)
    layer(x).sum().backward()
    a, b = 1.3, 0.4
    u = (x.detach().double().numpy() - b) / a
    g = np.clip(2 - 2 * np.abs(u), 0, None)
    to_values = np.broadcast_to(np.array([1.0, -1.0]).reshape(1, 2, 1, 1), u.shape)
    np.testing.assert_allclose(x.grad.numpy(), to_values * g, rtol=1e-5, atol=1e-6)
    (pair,) = layer.input_parts
    # the distance is −1.3, whose size counts
    to_size = (to_values * (np.where(u >= 0, 1, -1) - u * g)).sum()
    assert float(pair.distance.grad) == pytest.approx(-to_size, rel=1e-5)
    assert float(pair.center.grad) == pytest.approx((to_values * (1 - g)).sum(), rel=1e-4)


def test_normalized_divides_by_each_pictures_own_deviation_while_training_alone():
    part = Normalized(3, eps=1e-3)
    x = torch.randn(4, 3, 6, 5) * torch.tensor([0.1, 1, 5, 30]).view(-1, 1, 1, 1) + 2
    expected = np.stack([one / math.sqrt(one.var(ddof=1) + 1e-3) for one in x.double().numpy()])
    for form in (torch.contiguous_format, torch.channels_last):
        np.testing.assert_allclose(part(x.to(memory_format=form), 1).numpy(), expected, rtol=1e-4)
    rows = part(x.flatten(1), -1)
    np.testing.assert_allclose(rows.numpy(), expected.reshape(4, -1), rtol=1e-4)
    assert torch.equal(part.eval()(x, 1), x)
    part.train()
    leaf = x[:, :, :2, :2].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: part(x, 1), [leaf])
    # what torch.func derives are plain operations
    jacobian = torch.func.jacrev(lambda x: part(x, 1).square().sum())(leaf.detach())
    (mine,) = torch.autograd.grad(part(leaf, 1).square().sum(), leaf)
    torch.testing.assert_close(jacobian, mine)


@pytest.mark.parametrize("part", [Shifted, LearnedPair, Normalized])
def test_a_linear_layer_has_them_along_its_features(part):
    layer = moved(BinaryLinear(7, 3, input_parts=[part], bias=True)).eval()
    x = torch.randn(2, 4, 7)
    a, b = (1.3, 0.4) if part is LearnedPair else (1, 0)
    shift = layer.threshold().expand(7)
    values = a * torch.where(x >= shift, 1.0, -1.0) + b
    expected = values @ (layer.binary_weight() * layer.alpha().view(-1, 1)).T + layer.bias
    torch.testing.assert_close(layer(x), expected)
    layer.train()(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_in_the_stages_before_the_pair_is_where_it_belongs():
    layer, plain = (BinaryConv2d(4, 6, 3, input_parts=parts, bias=True) for parts in ([LearnedPair], []))
    moved(layer)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if "input_parts" not in k})
    x = torch.randn(2, 4, 5, 5)
    # real activations are themselves
    for one in (layer, plain):
        set_stage(one, "real")
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-4, atol=1e-5)
    set_stage(layer, "binary_activations")
    values = torch.where(x >= 0.4, 1.7, -0.9)
    torch.testing.assert_close(layer(x), plain(values), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("chain", "text"),
    [
        ([Shifted, LearnedPair], "input_parts: Shifted and LearnedPair both set the sign's threshold: leave one out"),
        ([partial(Normalized, eps=0.0)], "eps of Normalized is 0.0: give a finite number above 0"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(chain, text):
    with pytest.raises(ValueError, match=text) as error:
        BinaryConv2d(4, 6, 3, input_parts=chain)
    assert "\n" not in str(error.value)


def test_a_pair_has_no_scale_for_each_position():
    layer = BinaryConv2d(4, 6, 3, input_parts=[LearnedPair], scale="spatial", output_size=(3, 3))
    with pytest.raises(ValueError, match="scale 'spatial' cannot be combined with LearnedPair: choose scale 'channel'"):
        layer(torch.randn(1, 4, 5, 5))
    network = torch.nn.Sequential(BinaryConv2d(4, 6, 3, input_parts=[LearnedPair]))
    with pytest.raises(ValueError, match="layer 0: scale 'spatial' cannot"):
        make_spatial(network, (4, 5, 5))


def test_inputs_of_one_number_have_no_deviation():
    with pytest.raises(ValueError, match="Normalized: each input has a single entry"):
        BinaryConv2d(1, 6, 1, input_parts=[Normalized])(torch.randn(2, 1, 1, 1))


@pytest.mark.parametrize("parts", [[LearnedPair], [Normalized], [Shifted, Normalized], [LearnedPair, Normalized]])
@pytest.mark.parametrize("stage", ["real", "binary_activations", Mixed(1), Mixed(2)])
def test_eval_mode_computes_what_training_does(parts, stage):
    layer = moved(BinaryConv2d(4, 5, 3, padding=1, input_parts=parts).double())
    layer.stage = stage
    if isinstance(stage, Mixed):
        stage.share = 0.4
    x = 3 * torch.randn(2, 4, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(layer.eval()(x), layer.train()(x), rtol=1e-9, atol=1e-12)


def test_a_pair_that_is_too_narrow_grows_again():
    layer = BinaryLinear(4, 3, input_parts=[LearnedPair])
    (pair,) = layer.input_parts
    with torch.no_grad():
        pair.distance.fill_(5e-5)
    assert pair.pair()[0].item() == pytest.approx(1e-4)
    layer(torch.randn(2, 4)).sum().backward()
    assert pair.distance.grad.abs() > 0


@pytest.mark.parametrize("part", [Shifted, LearnedPair])
def test_parts_are_where_the_weight_is(part):
    weight = torch.empty(5, 4, 3, 3, dtype=torch.float64, device="meta")
    layer = BinaryConv2d(4, 5, 3, weight=weight, input_parts=[part])
    assert {(p.dtype, p.device.type) for p in layer.input_parts.parameters()} == {(torch.float64, "meta")}
