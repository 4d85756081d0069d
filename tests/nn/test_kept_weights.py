"""In eval mode without gradients a layer computes B and α once: it must never show a stale one."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.nn import BinaryConv2d, Dense, Holistic, Matrix, Tucker, factorize
from bnnlight.nn.scale import AnalyticScale


class Counted(Dense):
    """A dense latent that counts how often it is asked."""

    def __init__(self, weight):
        super().__init__(weight)
        self.num_calls = 0

    def forward(self):
        self.num_calls += 1
        return super().forward()


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


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_computed_once_without_gradients(mode):
    layer = make()
    with mode():
        outputs = [layer(X) for _ in range(3)]
        layer.binary_weight(), layer.alpha()
    assert layer.latent.num_calls == 1
    for y in outputs:
        torch.testing.assert_close(y, by_hand(layer))


def test_computed_each_time_in_training():
    layer = make().train()
    for _ in range(3):
        with torch.no_grad():
            layer(X)
    assert layer.latent.num_calls == 3


def test_computed_each_time_with_gradients():
    layer = make()
    with torch.no_grad():
        layer(X)
    for calls in (2, 3):
        y = layer(X)
        assert layer.latent.num_calls == calls
        assert y.requires_grad
    y.sum().backward()
    assert layer.latent.weight.grad is not None


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
    write_in_inference_mode,
    write_alpha,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_renewed_after_a_change_that_leaves_eval_mode_alone(change, mode):
    layer = make()
    with mode():
        before = layer(X).clone()
    change(layer)
    with mode():
        after = layer(X)
    torch.testing.assert_close(after, by_hand(layer))
    assert not torch.equal(after, before)


def test_renewed_in_the_new_dtype():
    layer = make()
    with torch.no_grad():
        layer(X)
        y = layer.to(torch.float64)(X.double())
    assert y.dtype == layer.binary_weight().dtype == torch.float64
    torch.testing.assert_close(y, by_hand(layer, X.double()))


def test_renewed_after_train():
    layer = make()
    with torch.no_grad():
        layer(X)
        layer.train().eval()(X)
    assert layer.latent.num_calls == 2


def test_renewed_when_the_scale_is_replaced():
    layer = make("none")
    with torch.no_grad():
        layer(X)
        layer.scale = AnalyticScale()
        torch.testing.assert_close(layer(X), by_hand(layer))


def test_renewed_when_one_joined_layer_changes_the_shared_tensor():
    model = factorize(nn.Sequential(BinaryConv2d(3, 3, 3), BinaryConv2d(3, 3, 3)), Holistic).eval()
    with torch.no_grad():
        before = [layer.binary_weight().clone() for layer in model]
        model[0].latent.shared.core.neg_()
        assert [torch.equal(layer.binary_weight(), -b) for layer, b in zip(model, before, strict=True)] == [True, True]


def test_what_inference_mode_kept_can_be_used_outside_of_it():
    layer = make()
    with torch.inference_mode():
        layer(X)
    with torch.no_grad():
        layer(X)
    assert layer.latent.num_calls == 1
    weight, alpha = layer.binary_weight(), layer.alpha()
    assert not weight.is_inference() and not alpha.is_inference()
    # an inference tensor would raise here, where autograd saves it for the backward pass
    x = X.clone().requires_grad_()
    (F.conv2d(x, weight) * alpha.view(-1, 1, 1)).sum().backward()
    assert x.grad.abs().sum() > 0


def test_gradient_to_the_input_after_inference_mode():
    layer, fresh = make(), make()
    fresh.load_state_dict(layer.state_dict())
    with torch.inference_mode():
        layer(X)
    x, x_fresh = X.clone().requires_grad_(), X.clone().requires_grad_()
    layer.requires_grad_(False)(x).sum().backward()
    fresh(x_fresh).sum().backward()
    assert torch.equal(x.grad, x_fresh.grad)


def test_a_layer_made_in_inference_mode_works():
    with torch.inference_mode():
        layer = make()
        torch.testing.assert_close(layer(X), by_hand(layer))


def test_what_was_kept_cannot_be_changed_through_alpha():
    layer = make()
    with torch.no_grad():
        before = layer(X).clone()
        layer.alpha().zero_()
        layer.scale.alpha.mul_(1)
        assert torch.equal(layer(X), before)


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic])
def test_deep_copy_and_pickle_work_after_use_and_do_not_carry_b(latent):
    layer = BinaryConv2d(3, 4, 3, latent=latent).eval()
    fresh_size = len(pickle.dumps(layer))
    with torch.no_grad():
        y = layer(X)
        assert len(pickle.dumps(layer)) == fresh_size
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
