"""Muon against singular values, plain iteration and torch's own."""

import copy
import math

import pytest
import torch
from torch import nn

from bnnlight.optim import Muon
from bnnlight.optim.polar import QUINTIC, orthogonalized

TO_ONE = (15 / 8, -10 / 8, 3 / 8)
"""Coefficients with which singular values go to 1 for good."""


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def latents(params):
    return [{"params": params, "name": "latent"}]


def stepped(weight, gradients, **options):
    """What each step adds to a weight."""
    p = nn.Parameter(weight.clone())
    optimizer = Muon(latents([p]), weight_decay=0.0, **options)
    for gradient in gradients:
        before = p.detach().clone()
        p.grad = gradient.clone()
        optimizer.step()
        yield p.detach() - before


def plain(x, steps, coefficients):
    a, b, c = coefficients
    x = x / x.norm()
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (9, 9), (1, 5)])
@pytest.mark.parametrize("coefficients", [QUINTIC, TO_ONE])
def test_iterating_on_the_gram_matrix_is_iterating_on_the_matrix(shape, coefficients):
    x = torch.randn(3, *shape, dtype=torch.float64)
    for steps in (1, 2, 5, 8):
        found = orthogonalized(x, steps, coefficients)
        for one, other in zip(found, x, strict=True):
            expected = plain(other if shape[0] <= shape[1] else other.T, steps, coefficients)
            expected = expected if shape[0] <= shape[1] else expected.T
            torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-10)
    single = orthogonalized(x.float(), 5, coefficients).double()
    assert (single - orthogonalized(x, 5, coefficients)).norm() <= 1e-4 * single.norm()


def test_many_steps_give_the_polar_factor():
    x = torch.randn(2, 8, 20, dtype=torch.float64)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    torch.testing.assert_close(orthogonalized(x, 30, TO_ONE), u @ v, rtol=1e-9, atol=1e-9)


def test_five_steps_change_nothing_but_singular_values_and_bring_them_near_one():
    values = torch.logspace(0, -1.9, 12, dtype=torch.float64)
    u, v = (torch.linalg.qr(torch.randn(n, 12, dtype=torch.float64)).Q for n in (12, 30))
    found = u.T @ orthogonalized((u * values @ v.T)[None])[0] @ v
    torch.testing.assert_close(found, torch.diag(found.diagonal()), rtol=0, atol=1e-10)
    assert found.diagonal().min() > 0.6 and found.diagonal().max() < 1.2


def test_zeros_stay_zeros():
    assert not orthogonalized(torch.zeros(1, 3, 4)).any()


def test_a_weight_whose_gradient_stays_away_comes_to_rest():
    """The momentum then falls below numbers whose squares single precision has."""
    weight = nn.Parameter(torch.randn(4, 6))
    optimizer = Muon(latents([weight]), lr=0.01)
    weight.grad = torch.randn(4, 6)
    for _ in range(1200):
        optimizer.step()
        weight.grad.zero_()
    before = weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.01 * 0.01), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (5, 7), (3, 4, 5)])
def test_a_step_is_the_polar_factor_of_the_momentum_at_the_size_asked(shape):
    """By SVD in float64, with momentum written out."""
    gradients = torch.randn(4, *shape, dtype=torch.float64)
    momentum = torch.zeros(shape, dtype=torch.float64)
    options = {"lr": 0.1, "momentum": 0.9, "rms": 0.4, "steps": 40, "coefficients": TO_ONE}
    for gradient, found in zip(gradients, stepped(torch.randn(shape).double(), gradients, **options), strict=True):
        momentum = 0.9 * momentum + 0.1 * gradient
        direction = 0.1 * gradient + 0.9 * momentum
        matrix = direction.reshape(-1, shape[-1]) if len(shape) == 3 else direction.reshape(shape[0], -1)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        expected = -0.1 * 0.4 * math.sqrt(max(matrix.shape)) * (u @ v).reshape(shape)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
        # of a matrix of full rank the root mean square is exactly that
        assert found.square().mean().sqrt() == pytest.approx(0.04, rel=1e-6)


def test_a_rotation_of_the_weights_rotates_the_steps_alike():
    gradients = torch.randn(5, 6, 9, dtype=torch.float64)
    left, right = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q for n in (6, 9))
    start = torch.randn(6, 9, dtype=torch.float64)
    one = stepped(start, gradients)
    two = stepped(left @ start @ right, [left @ g @ right for g in gradients])
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(left @ a @ right, b, rtol=1e-9, atol=1e-11)


def test_near_torchs_own():
    """Which iterates in bfloat16."""
    weight, gradients = torch.randn(12, 20), torch.randn(5, 12, 20)
    other = nn.Parameter(weight.clone())
    muon = torch.optim.Muon([other], lr=0.1, momentum=0.9, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for gradient, found in zip(gradients, stepped(weight, gradients, lr=0.1, momentum=0.9), strict=True):
        before = other.detach().clone()
        other.grad = gradient.clone()
        muon.step()
        expected = other.detach() - before
        assert (found - expected).norm() < 0.03 * expected.norm()


def test_bf16_products_are_near_the_exact_ones():
    x = torch.randn(2, 16, 40)
    exact, found = orthogonalized(x), orthogonalized(x, dtype=torch.bfloat16)
    assert 0 < (found - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("decay", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("shape", [(32, 288), (64, 576), (576, 64)])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_bf16_products_lose_no_small_singular_values(decay, shape, stored):
    """Beside f of the singular values themselves: by numbers in float64, without a product of matrices."""
    n = min(shape)
    u, v = (torch.linalg.qr(torch.randn(size, n, dtype=torch.float64)).Q for size in shape)
    values = torch.arange(1, n + 1, dtype=torch.float64) ** -decay
    x = (u * values @ v.T)[None].to(stored)
    found = orthogonalized(x, dtype=torch.bfloat16 if stored == torch.float32 else None)[0].double()
    a, b, c = QUINTIC
    values = values / values.norm()
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    expected = u * values @ v.T
    assert (found - expected).norm() < 0.25 * expected.norm()
    assert torch.linalg.matrix_norm(found, 2) < 1.5


def test_real_weights_are_adamws_unless_asked():
    for layers, kept in (("binary", [False, True]), ("all", [True, True]), ("real", [True, False])):
        weights = [nn.Parameter(torch.ones(3, 4)) for _ in range(2)]
        groups = [{"params": weights[:1], "name": "weight"}, {"params": weights[1:], "name": "latent"}]
        optimizer = Muon(groups, layers=layers)
        for weight in weights:
            weight.grad = torch.randn(3, 4)
        optimizer.step()
        assert ["momentum_buffer" in optimizer.state[w] for w in weights] == kept


def test_a_saved_state_goes_on_bit_for_bit():
    whole = [nn.Parameter(torch.randn(6, 4, 3, 3)) for _ in range(3)] + [nn.Parameter(torch.randn(5))]
    broken = copy.deepcopy(whole)
    one, two = Muon(latents(whole)), Muon(latents(broken))
    for step in range(8):
        if step % 2:
            state = copy.deepcopy(two.state_dict())
            two = Muon(latents(broken))
            two.load_state_dict(state)
        for p, q in zip(whole, broken, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        one.step()
        two.step()
        assert all(torch.equal(p, q) for p, q in zip(whole, broken, strict=True))


WRONG = {
    "lr": (0.0, math.nan),
    "momentum": (1.0, -0.1, math.nan),
    "rms": (0.0, math.inf),
    "steps": (0,),
    "coefficients": ((1.0, 2.0), (1.0, 2.0, math.nan)),
    "products": ("half",),
    "layers": ("latents",),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_numbers_out_of_range(name, value, check_one_line):
    with pytest.raises(ValueError) as error:
        Muon(latents([nn.Parameter(torch.ones(2, 2))]), **{name: value})
    check_one_line(error, name, "Muon")
