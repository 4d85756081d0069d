"""SOAP against another library, by its properties, and through what is saved of it."""

import copy
import math

import pytest
import torch
from fixtures.stepped_weights import gradients, latents, parameters, train
from pytorch_optimizer import SOAP as TheirSOAP
from torch import nn

from bnnlight.optim import SOAP


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_equals_another_library_step_by_step():
    ours = parameters()
    # the kernel's pixels as one mode
    theirs = [nn.Parameter(p.detach().flatten(2) if p.ndim > 2 else p.detach().clone()) for p in ours]
    shared = {"lr": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.1, "eps": 1e-8}
    exact = {"modes": "all", "relative_eps": 0.0, "spread": False, "interval": 5, "covariance_interval": 1}
    one = SOAP(latents(ours), **shared, **exact, covariance_beta=0.9)
    two = TheirSOAP(theirs, **shared, precondition_frequency=5, shampoo_beta=0.9)
    for found in gradients(ours, 30):
        for p, q, g in zip(ours, theirs, found, strict=True):
            p.grad, q.grad = g, g.reshape(q.shape)
        one.step()
        two.step()
        for p, q in zip(ours, theirs, strict=True):
            # of the whole weight: they decompose in float32, and some entries are near zero
            assert (p.view(q.shape) - q).norm() <= 1e-5 * q.norm()


@pytest.mark.parametrize("modes", ["matrix", "all", "channels", "output", "input", "kernel"])
def test_a_rotation_of_the_weights_rotates_the_steps_alike(modes):
    plain = parameters([(6, 6), (5, 5)] if modes == "matrix" else [(6, 4, 9), (5, 5)])
    turns = [[torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q for n in p.shape] for p in plain]

    def turned(x, turn):
        for mode, matrix in enumerate(turn):
            x = torch.tensordot(matrix, x, dims=([1], [mode])).movedim(0, mode)
        return x

    asked = {"channels": (0, 1), "output": (0,), "input": (1,), "kernel": (2,)}.get(modes, range(3))
    for turn in turns:
        turn[:] = [t if mode in asked else torch.eye(len(t), dtype=t.dtype) for mode, t in enumerate(turn)]
    rotated = [nn.Parameter(turned(p.detach(), t)) for p, t in zip(plain, turns, strict=True)]
    one, two = (SOAP(latents(params), lr=0.02, modes=modes, interval=3) for params in (plain, rotated))
    for found in gradients(plain, 25):
        for p, q, g, t in zip(plain, rotated, found, turns, strict=True):
            p.grad, q.grad = g, turned(g, t)
        one.step()
        two.step()
    for p, q, t in zip(plain, rotated, turns, strict=True):
        torch.testing.assert_close(turned(p.detach(), t), q.detach(), rtol=1e-7, atol=1e-9)


def test_a_diagonal_covariance_leaves_adam():
    """With one entry that has a gradient at a time no basis can be better than the entries' own."""
    weight = nn.Parameter(torch.zeros(4, 5, dtype=torch.float64))
    alone = weight.detach().clone().requires_grad_()
    optimizer = SOAP(latents([weight]), lr=0.1, betas=(0.9, 0.99), relative_eps=0.0, weight_decay=0.0)
    adam = torch.optim.Adam([alone], lr=0.1, betas=(0.9, 0.99))
    weight.grad = torch.eye(4, 5, dtype=torch.float64)
    optimizer.step()  # begins the covariances
    assert not weight.any()
    for factor in (1.0, -2.0, 0.5):
        weight.grad = alone.grad = factor * torch.eye(4, 5, dtype=torch.float64)
        optimizer.step()
        adam.step()
        torch.testing.assert_close(weight, alone)


def test_steps_do_not_depend_on_the_scale_of_the_loss():
    one, two = parameters(dtype=torch.float32), parameters(dtype=torch.float32)
    with torch.no_grad():
        for p, q in zip(one, two, strict=True):
            q.copy_(p)
    first, second = SOAP(latents(one)), SOAP(latents(two))
    for found in gradients(one, 15):
        for p, q, g in zip(one, two, found, strict=True):
            p.grad, q.grad = g, g * 2.0**-20
        first.step()
        second.step()
    for p, q in zip(one, two, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


def test_a_relative_epsilon_by_hand():
    weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimizer = SOAP([weight], lr=1.0, betas=(0.0, 0.0), eps=0.0, relative_eps=0.5, weight_decay=0.0)
    for _ in range(2):
        weight.grad = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))
        optimizer.step()
    # √V is 3, 1 and two zeros: its root mean square is √(10/4)
    eps = 0.5 * 2.5**0.5
    torch.testing.assert_close(weight.diagonal().tolist(), [-3 / (3 + eps), -1 / (1 + eps)])


def test_nesterovs_momentum_by_hand():
    weight = nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
    optimizer = SOAP(latents([weight]), lr=0.1, betas=(0.9, 0.8), nesterov=True, relative_eps=0.0, weight_decay=0.0)
    weight.grad = torch.eye(3, dtype=torch.float64)
    optimizer.step()
    mean = square = place = 0.0
    for t, g in enumerate((1.0, -2.0, 0.5), 1):
        weight.grad = g * torch.eye(3, dtype=torch.float64)
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * g, 0.8 * square + 0.2 * g * g
        place -= 0.1 * math.sqrt(1 - 0.8**t) / (1 - 0.9**t) * (0.9 * mean + 0.1 * g) / math.sqrt(square)
        torch.testing.assert_close(weight.diagonal().detach(), torch.full((3,), place, dtype=torch.float64))


def test_vectors_are_stepped_by_adamw_and_real_weights_where_asked():
    groups = lambda: [  # noqa: E731
        {"params": [nn.Parameter(torch.ones(3, 4))], "name": "weight"},
        {"params": [nn.Parameter(torch.ones(3))], "name": "norm", "weight_decay": 0.0},
        {"params": [nn.Parameter(torch.ones(2, 1, 1))], "name": "alpha", "weight_decay": 0.0},
        {"params": [nn.Parameter(torch.ones(3, 4))], "name": "latent/a/factor0", "weight_decay": 0.0},
    ]
    for layers, kept in (("all", {0, 3}), ("binary", {3}), ("real", {0})):
        ours = groups()
        optimizer = SOAP(ours, lr=0.1, betas=(0.8, 0.9), vector_eps=0.3, weight_decay=0.5, layers=layers)
        theirs = copy.deepcopy(ours)
        adamw = torch.optim.AdamW(theirs, lr=0.1, betas=(0.8, 0.9), eps=0.3, weight_decay=0.5)
        for _ in range(3):
            for group, other in zip(ours, theirs, strict=True):
                group["params"][0].grad = torch.randn_like(group["params"][0])
                other["params"][0].grad = group["params"][0].grad.clone()
            optimizer.step()
            adamw.step()
        for index, (group, other) in enumerate(zip(ours, theirs, strict=True)):
            same = torch.allclose(group["params"][0], other["params"][0])
            assert same == (index not in kept), (layers, index)
            assert ("basis_output" in optimizer.state[group["params"][0]]) == (index in kept)


def test_parameters_of_one_shape_are_stepped_as_each_alone():
    together, alone = parameters(), parameters()
    with torch.no_grad():
        for p, q in zip(together, alone, strict=True):
            q.copy_(p)
    train(SOAP(latents(together), interval=4, spread=False), together, 12)
    each = [SOAP(latents([p]), interval=4, spread=False) for p in alone]
    for found in gradients(alone, 12):
        for p, g, optimizer in zip(alone, found, each, strict=True):
            p.grad = g
            optimizer.step()
    for p, q in zip(together, alone, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_saved_state_goes_on_bit_for_bit(stop, tmp_path):
    whole = parameters(dtype=torch.float32)
    broken = copy.deepcopy(whole)
    options = {"interval": 3, "covariance_interval": 2}
    one, two = SOAP(latents(whole), **options), SOAP(latents(broken), **options)
    for step, found in enumerate(gradients(whole, 12)):
        if step == stop:
            torch.save([two.state_dict(), broken], tmp_path / "state.pt")
            state, broken = torch.load(tmp_path / "state.pt", weights_only=False)
            two = SOAP(latents(broken), **options)
            two.load_state_dict(state)
        for p, q, g in zip(whole, broken, found, strict=True):
            p.grad, q.grad = g, g.clone()
        one.step()
        two.step()
    for p, q in zip(whole, broken, strict=True):
        assert torch.equal(p, q)
        for name, value in one.state[p].items():
            other = two.state[q][name]
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def test_a_copy_and_a_pickled_one_go_on_by_themselves():
    params = parameters()
    optimizer = SOAP(latents(params))
    train(optimizer, params, 3)
    copied = copy.deepcopy(optimizer)
    before = [p.detach().clone() for p in params]
    theirs = copied.param_groups[0]["params"]
    train(copied, theirs, 2)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(params, theirs, strict=True))


def test_a_parameter_without_a_gradient_waits_and_begins_later():
    params = parameters([(4, 3), (4, 3)])
    optimizer = SOAP(latents(params))
    train(optimizer, params[:1], 3)
    assert optimizer.state[params[0]]["step"] == 3 and not optimizer.state.get(params[1])
    train(optimizer, params, 3)
    assert [optimizer.state[p]["step"] for p in params] == [6, 3]


def test_bf16_products_are_near_the_exact_ones():
    one, two = parameters([(16, 12, 3, 3)], torch.float32), parameters([(16, 12, 3, 3)], torch.float32)
    with torch.no_grad():
        two[0].copy_(one[0])
    start = one[0].detach().clone()
    train(SOAP(latents(one), lr=0.01), one, 10)
    train(SOAP(latents(two), lr=0.01, products="bfloat16"), two, 10)
    moved, apart = (one[0] - start).norm(), (one[0] - two[0]).norm()
    assert 0 < apart < 0.05 * moved


def test_rounding_of_gradients_stays_rounding_where_there_were_none_before():
    """As in processes that add up gradients in another order; of a mode with more entries than all others together."""
    one = parameters([(40, 3), (24, 2, 1, 1)])
    two = copy.deepcopy(one)
    optimizers = SOAP(latents(one), interval=3), SOAP(latents(two), interval=3)
    for step, found in enumerate(gradients(one, 30)):
        for p, q, g in zip(one, two, found, strict=True):
            g[5] = 0  # a dead channel
            p.grad, q.grad = g, ((g * 0.3) + g * 0.7) if step else g.flip(0).flip(0) * (1 + 2e-16)
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(one, two, strict=True):
        assert not torch.equal(p, q)
        assert (p - q).norm() <= 1e-9 * p.norm()


WRONG = {
    "lr": (0.0, -1.0, math.inf, math.nan),
    "betas": ((1.0, 0.9), (0.9, -0.1), (0.9,)),
    "eps": (-1e-8, math.nan),
    "vector_eps": (-1e-8, math.inf),
    "relative_eps": (-1e-5, math.nan),
    "weight_decay": (-0.1, math.inf),
    "modes": ("both",),
    "products": ("float16",),
    "layers": ("latents",),
    "covariance_beta": (1.0, math.nan),
    "interval": (0,),
    "covariance_interval": (0,),
    "last_renewal": (-1,),
    "block": (0,),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_numbers_out_of_range(name, value, check_one_line):
    with pytest.raises(ValueError) as error:
        SOAP(latents(parameters()), **{name: value})
    check_one_line(error, name, "SOAP")


def test_the_state_of_another_optimizer_is_refused(check_one_line):
    params = parameters()
    adamw = torch.optim.AdamW(params)
    with pytest.raises(ValueError) as error:
        SOAP(latents(params)).load_state_dict(adamw.state_dict())
    check_one_line(error, "SOAP", "the checkpoint is of another optimizer")


def test_a_device_without_eigenvectors(monkeypatch, check_one_line):
    def eigh(*args):
        raise NotImplementedError

    monkeypatch.setattr(torch.linalg, "eigh", eigh)
    params = parameters()
    with pytest.raises(ValueError) as error:
        train(SOAP(latents(params)), params, 1)
    check_one_line(error, "cpu", "choose bnnlight.optim.Muon")


def test_weights_of_half_precision_are_refused(check_one_line):
    params = parameters(dtype=torch.bfloat16)
    with pytest.raises(ValueError) as error:
        train(SOAP(latents(params)), params, 1)
    check_one_line(error, "bfloat16", "keep the weights in float32")
