"""A layer rebuilds its weight at each call, and never shows a stale one; within `weights_kept` it does so once."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.nn import BinaryConv2d, Dense, Holistic, Latent, Matrix, Tucker, factorize, weights_kept


class Counted(Latent):
    """A dense latent that counts how often it is asked; no subclass of Dense, whose weight is there anyway."""

    def __init__(self, weight):
        super().__init__(weight.shape)
        self.weight = nn.Parameter(weight.detach().clone())
        self.num_calls = 0

    def forward(self):
        self.num_calls += 1
        return self.weight * 1


X = torch.linspace(-1, 1, 2 * 3 * 6 * 6).reshape(2, 3, 6, 6).roll(7, 3)


def make(scale="channel"):
    layer = BinaryConv2d(3, 4, 3, latent=Counted, scale=scale).eval()
    layer.latent.num_calls = 0
    return layer


def by_hand(layer, x=X):
    """The layer's output without any of its code but the latent and α."""
    weight = layer.latent.weight.detach()
    signs, inputs = (torch.where(t >= 0, 1.0, -1.0).to(weight.dtype) for t in (weight, x))
    alpha = getattr(layer.scale, "alpha", weight.abs().mean((1, 2, 3))).detach()
    return F.conv2d(inputs, signs) * alpha.view(-1, 1, 1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_rebuilt_at_each_call_and_once_where_weights_are_kept(mode, training):
    layer = make().train(training)
    with mode():
        layer(X), layer(X)
        assert layer.latent.num_calls == 2
        with weights_kept():
            outputs = [layer(X) for _ in range(3)]
            layer.binary_weight(), layer.alpha()
        assert layer.latent.num_calls == 3
        layer(X)
        assert layer.latent.num_calls == 4
    for y in outputs:
        torch.testing.assert_close(y, by_hand(layer))


def test_what_is_kept_belongs_to_one_thread():
    layer = make()
    with torch.no_grad(), weights_kept():
        layer(X)
        with ThreadPoolExecutor(1) as other:
            other.submit(torch.no_grad()(layer), X).result()
        assert layer.latent.num_calls == 2


def test_gradients_where_weights_are_kept():
    layer = make()
    with weights_kept():
        layer(X).square().sum().backward()
        expected = layer.latent.weight.grad.clone()
        layer(X).square().sum().backward()
    assert expected.abs().sum() > 0 and torch.equal(layer.latent.weight.grad, 2 * expected)


def optimizer_step(layer):
    optimizer = torch.optim.SGD(layer.parameters(), lr=3.0)
    layer(X).square().sum().backward()
    optimizer.step()


def adam_step(layer):
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3.0)
    layer(X).square().sum().backward()
    optimizer.step()


def load(layer, **options):
    layer.load_state_dict({k: -v - 0.3 for k, v in layer.state_dict().items()}, **options)


def half_and_back(layer):
    # what a mixed-precision export does: the weights are rounded, their names and places are not new
    layer.to(torch.bfloat16).to(torch.float32)


def replace_latent(layer):
    layer.latent = Counted(torch.randn(4, 3, 3, 3))


def replace_parameter(layer):
    layer.latent.weight = nn.Parameter(torch.randn(4, 3, 3, 3))


def swap_data(layer):
    layer.latent.weight.data = torch.randn(4, 3, 3, 3)


def write_in_place(layer):
    with torch.no_grad():
        layer.latent.weight.neg_()


def write_to_data(layer):
    layer.latent.weight.data.neg_()


def write_in_inference_mode(layer):
    with torch.inference_mode():
        layer.latent.weight.neg_()


def write_alpha(layer):
    with torch.no_grad():
        layer.scale.alpha.mul_(-3)


CHANGES = [
    optimizer_step,
    adam_step,
    load,
    lambda layer: load(layer, assign=True),
    half_and_back,
    replace_latent,
    replace_parameter,
    swap_data,
    write_in_place,
    write_to_data,
    write_in_inference_mode,
    write_alpha,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_change_is_seen_at_once(change, mode):
    layer = make()
    with mode(), weights_kept():
        before = layer(X).clone()
    change(layer)
    with mode():
        after = layer(X)
    torch.testing.assert_close(after, by_hand(layer))
    assert not torch.equal(after, before)


def test_a_change_of_a_shared_tensor_is_seen_by_all_its_layers():
    model = factorize(nn.Sequential(BinaryConv2d(3, 3, 3), BinaryConv2d(3, 3, 3)), Holistic).eval()
    with torch.no_grad():
        before = [layer.binary_weight().clone() for layer in model]
        model[0].latent.shared.core.neg_()
        assert [torch.equal(layer.binary_weight(), -b) for layer, b in zip(model, before, strict=True)] == [True, True]


def test_a_layer_made_in_inference_mode_works():
    with torch.inference_mode(), weights_kept():
        layer = make()
        for _ in range(2):
            torch.testing.assert_close(layer(X), by_hand(layer))


def test_what_is_kept_in_inference_mode_can_be_used_outside_of_it():
    layer = make()
    x = X.clone().requires_grad_()
    with weights_kept():
        with torch.inference_mode():
            layer(X)
        layer(x).square().sum().backward()
    assert layer.latent.weight.grad.abs().sum() > 0 and x.grad.abs().sum() > 0
    # once without gradients, once for the gradient
    assert layer.latent.num_calls == 2


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic])
def test_deep_copies_and_pickles_are_on_their_own(latent):
    layer = BinaryConv2d(3, 4, 3, latent=latent).eval()
    with torch.no_grad(), weights_kept():
        y = layer(X)
    with torch.no_grad():
        twins = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
        for twin in twins:
            assert torch.equal(twin(X), y)
            for parameter in twin.latent.parameters():
                parameter.zero_()
            assert torch.equal(twin.binary_weight(), torch.ones(4, 3, 3, 3))
        assert torch.equal(layer(X), y)


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic])
def test_state_dict_holds_factors_and_alpha_alone_and_loads_without_code(latent):
    layer, other = (BinaryConv2d(3, 4, 3, latent=latent).eval() for _ in range(2))
    with torch.no_grad():
        layer(X), other(X)
    assert set(layer.state_dict()) == {name for name, _ in layer.named_parameters()}
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(other(X), layer(X))


def test_kept_weights_are_those_of_the_parameters_at_hand():
    layer = BinaryConv2d(4, 6, 3, latent=Tucker)
    x = torch.randn(2, 4, 5, 5)
    other = {name: -tensor if name == "latent.core" else tensor for name, tensor in layer.state_dict().items()}
    with torch.no_grad(), weights_kept():
        first = layer(x)
        assert torch.equal(torch.func.functional_call(layer, other, (x,)), -first)
        assert torch.equal(layer(x), first)
        layer.double()
        assert layer.alpha().dtype == layer(x.double()).dtype == torch.float64


class Fixed(Latent):
    """A weight that nothing trains."""

    def __init__(self, weight):
        super().__init__(weight.shape)
        self.register_buffer("fixed", weight.detach().clone())

    def forward(self):
        return self.fixed * 1


@pytest.mark.parametrize("scale", ["channel", "analytic"])
def test_a_latent_without_parameters_can_be_trained_around(scale):
    layer = BinaryConv2d(4, 6, 3, latent=Fixed, scale=scale)
    dense = BinaryConv2d(4, 6, 3, scale=scale, weight=layer.latent.fixed)
    x = torch.randn(2, 4, 5, 5)
    gradients = []
    for network in (layer, dense):
        own = x.clone().requires_grad_()
        network(own).square().sum().backward()
        gradients.append(own.grad)
    assert torch.equal(*gradients)
