"""Bop against loops in numpy, and through what trains with it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.nn import BinaryConv2d, BinaryLinear, Holistic, Matrix, Standardized, Tucker, factorize
from bnnlight.optim import Bop, parameter_groups
from bnnlight.tasks.optimization import make_optimizer, warmup_cosine


def make(weight, other=None, **options):
    """An optimizer of one latent weight and, if given, one other parameter."""
    groups = [{"params": [weight], "name": "latent", "weight_decay": 0.0}]
    if other is not None:
        groups.append({"params": [other], "name": "weight"})
    return Bop(groups, **options)


def numpy_bop(weight, gradients, gamma, threshold):
    """Weights after each step, one entry at a time in float64."""
    weight, average, after = weight.copy(), np.zeros_like(weight), []
    for gradient in gradients:
        for i in np.ndindex(weight.shape):
            average[i] = (1 - gamma) * average[i] + gamma * gradient[i]
            same = (average[i] > 0 and weight[i] > 0) or (average[i] < 0 and weight[i] < 0)
            if abs(average[i]) > threshold and same:
                weight[i] = -weight[i]
        after.append(weight.copy())
    return after


@pytest.mark.parametrize(("gamma", "threshold"), [(1e-4, 1e-8), (0.3, 0.1), (1.0, 0.5), (0.01, 0.0)])
def test_equals_a_loop_over_the_entries(gamma, threshold):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4, 2)), rng.normal(size=(30, 3, 4, 2))
    weight = nn.Parameter(torch.tensor(start))
    optimizer = make(weight, gamma=gamma, threshold=threshold)
    expected = numpy_bop(start, gradients, gamma, threshold)
    for gradient, after in zip(gradients, expected, strict=True):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        assert np.array_equal(weight.detach().numpy(), after)
    # there were flips, not of all, and no magnitude has changed
    assert 0 < (np.sign(expected[-1]) != np.sign(start)).mean() < 1
    assert np.array_equal(np.abs(expected[-1]), np.abs(start))
    np.testing.assert_array_equal(weight.detach().abs().numpy(), np.abs(start))


def test_a_weight_flips_only_where_both_conditions_hold():
    # with γ = 1 the average is the gradient; a flip needs its sign, and more than the threshold
    start = torch.tensor([2.0, 2.0, 2.0, 2.0, -0.5, -0.5, -0.5, -0.5, 1.0], dtype=torch.float64)
    gradient = torch.tensor([0.11, 0.09, -0.11, -0.09, 0.11, 0.09, -0.11, -0.09, 0.1], dtype=torch.float64)
    flips = [True, False, False, False, False, False, True, False, False]
    weight = nn.Parameter(start.clone())
    optimizer = make(weight, gamma=1.0, threshold=0.1)
    weight.grad = gradient
    optimizer.step()
    assert (weight != start).tolist() == flips
    assert torch.equal(weight.abs(), start.abs())


def test_a_weight_of_zero_can_flip():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = make(weight, gamma=1.0, threshold=0.0)
    weight.grad = torch.tensor([1.0, -1.0])
    optimizer.step()
    assert (weight >= 0).tolist() == [False, True]  # as a sign, zero is +1


def test_everything_else_is_stepped_by_adamw():
    torch.manual_seed(0)
    weight, other, alone = (nn.Parameter(torch.randn(5)) for _ in range(3))
    with torch.no_grad():
        alone.copy_(other)
    options = {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.3}
    optimizer, reference = make(weight, other, **options), torch.optim.AdamW([alone], **options)
    for _ in range(4):
        weight.grad, other.grad = torch.randn(5), torch.randn(5)
        alone.grad = other.grad.clone()
        optimizer.step()
        reference.step()
    assert torch.equal(other, alone)


def network(latent=None, scale="channel"):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        BinaryConv2d(4, 6, 3, scale=scale, weight_gradient="identity"),
        nn.BatchNorm2d(6),
        BinaryConv2d(6, 6, 3, scale=scale, weight_gradient="identity"),
    )
    return model if latent is None else factorize(model, latent)


def train(model, optimizer, steps, first=0, scheduler=None):
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()
        if scheduler:
            scheduler.step()


def test_groups_of_a_network_have_their_rates():
    model = network()
    optimizer = make_optimizer(model, lambda g: Bop(g, lr=0.01, gamma=1e-3, weight_decay=0.1), alpha_lr=0.5)
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {"latent": (1e-3, 0), "alpha": (0.005, 0), "norm": (0.01, 0), "weight": (0.01, 0.1)}
    assert [g["name"] for g in optimizer.param_groups] == [g.name for g in parameter_groups(model)]


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_been():
    torch.manual_seed(0)
    whole = network()
    broken = copy.deepcopy(whole)
    make_it = lambda model: make_optimizer(model, lambda g: Bop(g, lr=0.01, gamma=0.1, threshold=1e-6))  # noqa: E731
    optimizer = make_it(whole)
    train(whole, optimizer, 8, scheduler=warmup_cosine(optimizer, 8, 0.2))
    optimizer = make_it(broken)
    scheduler = warmup_cosine(optimizer, 8, 0.2)
    train(broken, optimizer, 3, scheduler=scheduler)
    saved, planned = copy.deepcopy(optimizer.state_dict()), scheduler.state_dict()
    assert len(saved["state"]) == len(list(broken.parameters()))
    optimizer = make_it(broken)
    scheduler = warmup_cosine(optimizer, 8, 0.2)
    optimizer.load_state_dict(saved)
    scheduler.load_state_dict(planned)
    train(broken, optimizer, 5, first=3, scheduler=scheduler)
    for (name, a), (_, b) in zip(whole.state_dict().items(), broken.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_a_state_from_when_bop_was_built_on_torch_alone_goes_on():
    """Its groups had torch's AdamW's options, and nothing of matrices."""
    weight, other = nn.Parameter(torch.ones(2, 1)), nn.Parameter(torch.ones(2, 1))
    optimizer = make(weight, other, lr=0.5, gamma=0.5, threshold=0.1)
    weight.grad, other.grad = torch.full((2, 1), 0.18), torch.ones(2, 1)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    plain = torch.optim.AdamW([torch.zeros(1)]).defaults
    state["param_groups"] = [plain | {k: v for k, v in g.items() if k != "matrices"} for g in state["param_groups"]]
    optimizer = make(weight, other, lr=0.1)
    optimizer.load_state_dict(state)
    optimizer.step()
    # m = 0.09, below τ; then 0.135, above it
    assert weight.tolist() == [[-1], [-1]]
    assert other[0].item() == pytest.approx((0.995 - 0.5) * 0.995 - 0.5, abs=1e-6)
    assert optimizer.state[other]["step"].item() == 2


def test_a_copy_steps_its_own_parameters():
    weight, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = make(weight, other, gamma=1.0)
    copied = copy.deepcopy(optimizer)
    (theirs,), (also,) = (group["params"] for group in copied.param_groups)
    theirs.grad, also.grad = torch.ones(2), torch.ones(2)
    copied.step()
    assert theirs.tolist() == [-1, -1] and (also < 1).all()
    assert weight.tolist() == other.tolist() == [1, 1]


def test_a_schedule_moves_gamma_and_the_rate_alike():
    weight, other = nn.Parameter(torch.tensor([-1.0])), nn.Parameter(torch.ones(1))
    optimizer = make(weight, other, lr=0.5, gamma=0.5, threshold=10.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    averages = []
    for _ in range(3):
        weight.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
        averages.append(optimizer.state[weight]["exp_avg"].item())
    # γ = 1/2, 1/4, 1/8: m = 1/2, then 3/4 · 1/2 + 1/4, then 7/8 of that + 1/8
    assert averages == [0.5, 0.625, 0.671875]
    assert [group["lr"] for group in optimizer.param_groups] == [0.0625, 0.0625]


def test_parameters_without_gradient_rest_and_a_closure_is_called():
    weight, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = make(weight, other, gamma=1.0)
    optimizer.step()
    assert weight.item() == other.item() == 1 and not optimizer.state

    def closure():
        loss = (weight * other).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1
    assert weight.item() == -1 and other.item() < 1


def test_a_group_that_is_added_is_trained_by_its_name():
    torch.manual_seed(0)
    weight, other, late, alone, flipped = (nn.Parameter(torch.ones(3)) for _ in range(5))
    optimizer = make(weight, lr=0.5, gamma=1.0, threshold=0.1)
    optimizer.add_param_group({"params": [other], "lr": 0.02, "weight_decay": 0.3})  # without a name
    optimizer.add_param_group({"params": [late], "name": "backbone"})
    optimizer.add_param_group({"params": [flipped], "name": "latent"})
    reference = torch.optim.AdamW([{"params": [alone], "lr": 0.02, "weight_decay": 0.3}])
    for _ in range(3):
        for parameter in (weight, other, late, flipped, alone):
            parameter.grad = torch.tensor([0.3, -0.3, 0.05])
        optimizer.step()
        reference.step()
    assert torch.equal(other, alone)
    assert late[0].item() == pytest.approx(1 - 3 * 0.5, abs=0.03)  # AdamW of the optimizer's own rate
    # γ and τ of the others: it flips at the first step and has the gradient's other sign from then on
    assert weight.tolist() == flipped.tolist() == [-1, 1, 1]
    assert len(optimizer.state_dict()["state"]) == 4


def test_groups_that_are_set_from_outside_are_trained():
    # as Lightning's BaseFinetuning does when a run goes on
    weight, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = make(weight, gamma=1.0)
    group = {key: value for key, value in optimizer.param_groups[0].items() if key != "threshold"}
    optimizer.param_groups = [*optimizer.param_groups, group | {"params": [other], "name": "other", "lr": 0.5}]
    weight.grad, other.grad = torch.ones(1), torch.ones(1)
    optimizer.step()
    assert weight.item() == -1 and other.item() == pytest.approx(0.5)


def test_a_network_of_binary_layers_alone_can_be_trained():
    model = BinaryConv2d(3, 4, 3, scale="none", weight_gradient="identity")
    optimizer = make_optimizer(model, lambda g: Bop(g, gamma=0.5))
    before = model.binary_weight()
    train(model, optimizer, 3)
    assert 0 < (model.binary_weight() != before).float().mean() < 1


@pytest.mark.parametrize("latent", [Matrix, Tucker, lambda w: Tucker(w, start="identity"), Holistic])
def test_factors_are_an_error_that_says_what_to_do(latent, check_one_line):
    with pytest.raises(ValueError) as error:
        make_optimizer(network(latent), Bop)
    check_one_line(error, "'latent/", "are factors", "choose latent bnnlight.nn.Dense")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"lr": 0.0}, "lr of Bop is 0.0: give"),
        ({"gamma": 0.0}, "gamma of Bop is 0.0: give"),
        ({"gamma": 1.5}, "gamma of Bop is 1.5"),
        ({"gamma": float("nan")}, "gamma of Bop is nan"),
        ({"threshold": -1.0}, "threshold of Bop is -1.0"),
        ({"threshold": float("nan")}, "threshold of Bop is nan"),
    ],
)
def test_numbers_out_of_range(options, part):
    with pytest.raises(ValueError, match=part):
        make(nn.Parameter(torch.ones(1)), **options)


@pytest.mark.parametrize("params", [[nn.Parameter(torch.ones(1))], [{"params": [nn.Parameter(torch.ones(1))]}]])
def test_a_network_without_binary_layers_is_an_error(params):
    with pytest.raises(ValueError, match="no parameter group named 'latent': the network needs binary layers"):
        Bop(params)


def test_weights_that_are_changed_before_their_sign_are_refused():
    network = nn.Sequential(BinaryLinear(4, 4), BinaryLinear(4, 4, weight_parts=[Standardized]))
    with pytest.raises(ValueError, match=r"Bop flips .*, and Standardized in weight_parts of layer 1 changes"):
        make_optimizer(network, Bop)
    make_optimizer(network[:1], Bop)
