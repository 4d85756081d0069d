"""Transforms of torch.func over binary layers, beside backward passes and loops in plain Python."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, stack_module_state, vmap

from bnnlight.nn import CP, BinaryConv2d, BinaryLinear, Dense, Holistic, Matrix, Rotated, Tanh, TensorTrain, Tucker
from bnnlight.nn.compute.lean import recomputed

LATENTS = {c.__name__: c for c in (Dense, Matrix, Tucker, Holistic, CP, TensorTrain, Rotated)}
each_latent = pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)
each_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


class Net(nn.Module):
    """A binary convolution with a PReLU's slope, and a binary linear layer."""

    def __init__(self, latent, scale="channel", gradient="clipped"):
        super().__init__()
        self.lean = True
        options = {"latent": latent, "scale": scale, "activation_gradient": gradient, "weight_gradient": gradient}
        self.conv = BinaryConv2d(4, 6, 3, padding=1, padding_value=-1, **options)
        self.slope = nn.Parameter(torch.rand(6))
        self.linear = BinaryLinear(24, 5, bias=True, **options)

    def forward(self, x):
        y = recomputed(self.part, x, self) if self.lean else self.part(x)
        return self.linear(nn.functional.avg_pool2d(y, 2).flatten(1))

    def part(self, x):
        return self.conv(x, self.slope)


def make(latent, training=True, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return Net(latent, **options).to(dtype).train(training), torch.randn(3, 4, 4, 4, dtype=dtype)


def loss_of(network, state, x):
    y = functional_call(network, state, (x,))
    return (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum()


def by_backward(network, x):
    """Gradients of all parameters and of x, from a copy."""
    network, x = copy.deepcopy(network), x.clone().requires_grad_()
    loss_of(network, {}, x).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}, x.grad


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


@each_latent
@each_mode
def test_grad_is_that_of_backward(latent, training):
    network, x = make(latent, training)
    state = {name: parameter.detach() for name, parameter in network.named_parameters()}
    of_state, of_x = grad(lambda state, x: loss_of(network, state, x), argnums=(0, 1))(state, x)
    expected, expected_x = by_backward(network, x)
    assert_same(of_state | {"x": of_x}, expected | {"x": expected_x})
    # of x alone: the parameters are the network's own
    torch.testing.assert_close(grad(lambda x: loss_of(network, {}, x))(x), expected_x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gradient", ["identity", "polynomial", "swish", Tanh(2.0)], ids=str)
@pytest.mark.parametrize("scale", ["analytic", "none"])
def test_other_options_too(gradient, scale):
    network, x = make(Tucker, gradient=gradient, scale=scale)
    state = {name: parameter.detach() for name, parameter in network.named_parameters()}
    assert_same(grad(lambda state: loss_of(network, state, x))(state), by_backward(network, x)[0])


@each_latent
@each_mode
def test_vmap_over_a_stack_of_networks_is_a_loop(latent, training):
    networks = [make(latent, training)[0] for _ in range(3)]
    x = torch.randn(3, 2, 4, 4, 4, dtype=torch.float64)
    for shift, network in enumerate(networks):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.1 * shift * torch.randn_like(parameter)
    parameters, buffers = stack_module_state(networks)
    parameters = {name: parameter.detach() for name, parameter in parameters.items()}

    def loss(parameters, buffers, x):
        return loss_of(networks[0], parameters | buffers, x)

    losses, gradients = vmap(loss)(parameters, buffers, x), vmap(grad(loss))(parameters, buffers, x)
    for index, (network, own) in enumerate(zip(networks, x, strict=True)):
        torch.testing.assert_close(losses[index], loss_of(network, {}, own).detach())
        assert_same({name: g[index] for name, g in gradients.items()}, by_backward(network, own)[0])


@pytest.mark.parametrize("latent", [Dense, Tucker, Rotated])
def test_gradients_of_each_picture_and_jacobians(latent):
    network, x = make(latent)
    state = {name: parameter.detach() for name, parameter in network.named_parameters()}
    rows = jacrev(lambda state: functional_call(network, state, (x,)).flatten())(state)
    of_one = grad(lambda state, one: functional_call(network, state, (one[None],)).sum())
    of_pictures = vmap(of_one, (None, 0))(state, x)
    for index in range(len(x)):
        network.zero_grad()
        network(x[index : index + 1]).sum().backward()
        expected = {name: parameter.grad for name, parameter in network.named_parameters()}
        assert_same({name: g[index] for name, g in of_pictures.items()}, expected)
        # five outputs a picture
        assert_same({name: r[5 * index : 5 * index + 5].sum(0) for name, r in rows.items()}, expected)


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
@pytest.mark.parametrize("latent", [Tucker, Rotated])
def test_single_precision_too_and_nothing_is_left_behind(latent, products, monkeypatch):
    # also where a product of this size would be taken to the library that has no rule for transforms
    monkeypatch.setattr("bnnlight.nn.compute.product.SMALL", 0)
    network, x = make(lambda weight: latent(weight, products=products), dtype=torch.float32)
    state = {name: parameter.detach() for name, parameter in network.named_parameters()}
    found = vmap(grad(lambda state, x: loss_of(network, state, x)), (None, 0))(state, x[None])
    expected = by_backward(network, x)[0]
    for name, gradient in expected.items():
        size = gradient.abs().max()
        tolerance = 1e-5 if products == "float32" else 2e-2
        torch.testing.assert_close(found[name][0] / size, gradient / size, rtol=0, atol=tolerance)
    assert all(map(torch.equal, by_backward(network, x)[0].values(), expected.values()))


@each_latent
@each_mode
@pytest.mark.parametrize("lean", [False, True], ids=["", "lean"])
def test_functional_call_and_a_backward_pass_behind_it(latent, training, lean):
    network, x = make(latent, training)
    network.lean = lean
    expected = by_backward(network, x)[0]
    state = {name: parameter.detach().clone().requires_grad_() for name, parameter in network.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    loss_of(network, state, x).backward()
    assert_same({name: tensor.grad for name, tensor in state.items()}, expected)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_batch_norms_of_a_lean_segment_count_a_batch_once_in_functional_call():
    torch.manual_seed(0)
    conv = BinaryConv2d(4, 6, 3, latent=Tucker).double()
    segment = nn.Sequential(nn.BatchNorm2d(4), conv, nn.BatchNorm2d(6), nn.PReLU()).double()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    lean = {name: tensor.detach().clone() for name, tensor in segment.state_dict().items()}
    plain = {name: tensor.clone() for name, tensor in lean.items()}
    for state, run in ((lean, lambda x: recomputed(segment, x, segment)), (plain, segment)):
        trained = {name: tensor.requires_grad_(tensor.is_floating_point()) for name, tensor in state.items()}
        for name in trained:
            if "running" in name:
                trained[name].requires_grad_(False)
        loss_of(Whole(segment, run), {f"segment.{name}": tensor for name, tensor in trained.items()}, x).backward()
    assert lean["0.num_batches_tracked"] == 1 and segment[0].num_batches_tracked == 0
    for name, tensor in plain.items():
        torch.testing.assert_close(lean[name].detach(), tensor.detach())
        if tensor.requires_grad:
            torch.testing.assert_close(lean[name].grad, tensor.grad)


class Whole(nn.Module):
    def __init__(self, segment, run):
        super().__init__()
        self.segment, self.run = segment, (run,)

    def forward(self, x):
        return self.run[0](x)
