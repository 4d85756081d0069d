"""Relative rates under every schedule, in groups that are added, and in one step of many groups."""

import copy
import functools
import pickle
from abc import ABC, abstractmethod

import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import nn
from torch.optim import lr_scheduler as schedules
from torch.optim.swa_utils import SWALR

from bnnlight.nn import BinaryConv2d, Dense, Tucker, factorize, named_binary_layers
from bnnlight.optim import SOAP, Bop, Muon, parameter_groups
from bnnlight.tasks.optimization import make_optimizer, step_schedule, warmup_cosine

HALF = functools.partial(Tucker, rank=0.5)
ADAMW = functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
SGD = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=0.1)
SOAPS = functools.partial(SOAP, lr=0.01, weight_decay=0.1, interval=3)
MUON = functools.partial(Muon, lr=0.01, weight_decay=0.1)


def network(latent=HALF, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential()
    model.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model.body = nn.Sequential(BinaryConv2d(4, 4, 3), nn.PReLU(4), BinaryConv2d(4, 4, 3))
    model.head = nn.Conv2d(4, 2, 1)
    return factorize(model, latent)


def advance(scheduler):
    plateau = isinstance(scheduler, schedules.ReduceLROnPlateau)
    step_schedule(scheduler, 1.0 if plateau else None)  # a figure that never gets better


def train(model, optimizer, scheduler, steps):
    """Rates of all groups after each of some steps."""
    rates = []
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        advance(scheduler)
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    return rates


SCHEDULES = {
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, max_lr=0.02, total_steps=12),
    "OneCycleLR in three phases": lambda o: schedules.OneCycleLR(o, max_lr=0.02, total_steps=12, three_phase=True),
    "CyclicLR": lambda o: schedules.CyclicLR(o, base_lr=1e-4, max_lr=0.02, step_size_up=3),
    "SWALR": lambda o: SWALR(o, swa_lr=0.05, anneal_epochs=4),
    "cosine with a floor": lambda o: schedules.CosineAnnealingLR(o, T_max=5, eta_min=5e-3),
    "restarts with a floor": lambda o: schedules.CosineAnnealingWarmRestarts(o, T_0=4, eta_min=2e-3),
    "plateau with a floor": lambda o: schedules.ReduceLROnPlateau(o, patience=0, factor=0.5, min_lr=2e-3),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, total_iters=8),
    "LinearLR": lambda o: schedules.LinearLR(o, total_iters=4),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, total_iters=3), schedules.CosineAnnealingLR(o, 6, eta_min=1e-3)], [3]
    ),
    "the default": lambda o: warmup_cosine(o, 12, 0.2),
}


@pytest.mark.parametrize("optimizer", [ADAMW, SGD, SOAPS, MUON], ids=["AdamW", "SGD", "SOAP", "Muon"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_of_one_parameter_is_that_of_all_groups_and_goes_on_under_another_seed(schedule, optimizer):
    # what the schedule does to an optimizer of one parameter is the base rate
    alone = optimizer([nn.Parameter(torch.zeros(1))])
    planned, expected, options = schedule(alone), [], []
    for _ in range(9):
        alone.step()
        advance(planned)
        expected.append(alone.param_groups[0]["lr"])
        options.append(alone.param_groups[0].get("betas", alone.param_groups[0].get("momentum")))

    model = network()
    made = make_optimizer(model, optimizer, alpha_lr=0.1)
    scales = [group["lr_scale"] for group in made.param_groups]
    assert len(set(scales)) > 3 and 0.1 in scales
    scheduler = schedule(made)
    rates = train(model, made, scheduler, range(9))
    for row, base in zip(rates, expected, strict=True):
        assert row == pytest.approx([base * scale for scale in scales], rel=1e-9, abs=1e-15)
    found = {g.get("betas", g.get("momentum")) for g in made.param_groups}
    assert found == {options[-1]}  # momentum is cycled too

    broken = network()
    made = make_optimizer(broken, optimizer, alpha_lr=0.1)
    scheduler = schedule(made)
    train(broken, made, scheduler, range(4))
    saved = copy.deepcopy([part.state_dict() for part in (broken, made, scheduler)])
    other = network(seed=7)
    made = make_optimizer(other, optimizer, alpha_lr=0.1)
    scheduler = schedule(made)
    assert [group["lr_scale"] for group in made.param_groups] != scales
    for part, state in zip((other, made, scheduler), saved, strict=True):
        part.load_state_dict(state)
    assert train(other, made, scheduler, range(4, 9)) == rates[4:]
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


class Abstract(ABC, torch.optim.Optimizer):
    """Other packages derive all of their optimizers from a class like this."""

    @abstractmethod
    def name(self): ...


class Signs(Abstract):
    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    def name(self):
        return "signs"

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad.sign()


def test_an_optimizer_of_abstract_bases_keeps_relative_rates_too():
    model = network()
    optimizer = make_optimizer(model, Signs, alpha_lr=0.1)
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    rates = train(model, optimizer, SCHEDULES["SWALR"](optimizer), range(3))
    assert len(set(scales)) > 3
    for row in rates:
        assert row == pytest.approx([row[0] / scales[0] * scale for scale in scales])
    assert pickle.loads(pickle.dumps(optimizer)).name() == copy.deepcopy(optimizer).name() == "signs"


def test_a_relative_rate_is_changed_by_its_number():
    optimizer = make_optimizer(network(), ADAMW)
    scheduler = SCHEDULES["OneCycleLR"](optimizer)
    optimizer.param_groups[-1]["lr_scale"] = 7.0
    optimizer.step()
    advance(scheduler)
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(7 * optimizer.param_groups[0]["lr"])


def test_groups_whose_rate_is_zero_stay_so_and_lead_nobody():
    model = factorize(
        nn.Sequential(BinaryConv2d(4, 4, 3), BinaryConv2d(4, 4, 3)), functools.partial(Tucker, factor_lr=0.0)
    )
    optimizer = make_optimizer(model, ADAMW, alpha_lr=0.0)
    scheduler = SCHEDULES["CyclicLR"](optimizer)
    for _ in range(3):
        optimizer.step()
        advance(scheduler)
    for group in optimizer.param_groups:
        assert group["lr"] == (pytest.approx(0.02 * group["lr_scale"]) if "core" in group["name"] else 0), group["name"]


@pytest.mark.parametrize("optimizer", [ADAMW, SGD, functools.partial(torch.optim.AdamW, lr=0.01, foreach=True)])
def test_a_step_of_many_groups_is_that_of_each_parameter_alone(optimizer):
    model, twin = network(), network()
    made = make_optimizer(model, optimizer, alpha_lr=0.1)
    options = {id(p): group for group in made.param_groups for p in group["params"]}
    plain = optimizer(
        [
            {"params": [mine], **{key: options[id(theirs)][key] for key in ("lr", "weight_decay")}}
            for mine, theirs in zip(twin.parameters(), model.parameters(), strict=True)
        ]
    )
    for _ in range(3):
        for theirs, mine in zip(model.parameters(), twin.parameters(), strict=True):
            theirs.grad = torch.randn_like(theirs)
            mine.grad = theirs.grad.clone()
        made.step()
        plain.step()
    for (name, theirs), mine in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(theirs, mine), name


class Counting(torch.optim.SGD):
    """Keeps a number in its groups, counts them, and calls its closure twice."""

    def step(self, closure=None):
        self.seen = len(self.param_groups)
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
        return closure() + closure()


def test_groups_of_equal_options_are_stepped_as_one_and_seen_apart():
    optimizer = make_optimizer(network(), lambda groups: Counting(groups, lr=0.1))
    apart = len(optimizer.param_groups)
    assert optimizer.step(lambda: len(optimizer.param_groups)) == 2 * apart
    assert optimizer.seen == len({(g["lr"], g["weight_decay"]) for g in optimizer.param_groups}) < apart
    assert [group["count"] for group in optimizer.param_groups] == [1] * apart
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert len(optimizer.param_groups) == apart


def test_hooks_of_a_step_run_once_also_where_a_state_was_loaded():
    model = network()
    optimizer, calls = make_optimizer(model, ADAMW), []
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.step()
    assert calls == ["before", "after"]


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
@pytest.mark.parametrize(("latent", "optimizer"), [(HALF, ADAMW), (Dense, functools.partial(Bop, lr=0.1))])
def test_a_copy_has_the_rates_and_keeps_them(latent, optimizer, remake):
    made = make_optimizer(network(latent), optimizer, alpha_lr=0.1)
    copied = remake(made)
    assert type(copied) is type(made) and isinstance(copied, optimizer.func)
    copied.param_groups[0]["lr"] *= 2
    for mine, theirs in zip(copied.param_groups, made.param_groups, strict=True):
        assert mine["lr"] == pytest.approx(2 * theirs["lr"])
        assert mine["params"][0] is not theirs["params"][0]
        mine["params"][0].grad = torch.ones_like(mine["params"][0])
    before = copied.param_groups[0]["params"][0].clone()
    copied.step()
    assert not torch.equal(copied.param_groups[0]["params"][0], before)


def test_lightnings_wrapper_sees_and_adds_the_same_groups():
    model = network()
    model.head.requires_grad_(False)
    optimizer = make_optimizer(model, ADAMW)
    wrapped = LightningOptimizer(optimizer)
    assert isinstance(wrapped, torch.optim.AdamW) and wrapped.param_groups is optimizer.param_groups
    model.head.requires_grad_(True)
    wrapped.add_param_group({"params": model.head.parameters(), "lr": 0.001})
    assert [group["name"] for group in optimizer.param_groups[-2:]] == ["norm/added1", "weight/added1"]
    assert wrapped.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


# groups that are added


def settings(optimizer):
    return {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def check_added(model, optimizer, rate, decay=0.1):
    """Each parameter of the body has the rate and decay of its kind, for that base rate."""
    found = settings(optimizer)
    scales = {
        p: layer.latent.lr_scales[n]
        for _, layer in named_binary_layers(model)
        for n, p in layer.latent.named_parameters()
    }
    scales |= {layer.scale.alpha: 0.1 for _, layer in named_binary_layers(model)}
    for parameter in model.body.parameters():
        assert found[id(parameter)] == (pytest.approx(rate * scales.get(parameter, 1.0), rel=0.05), 0)
    for part, lasting in ((model.head.weight, decay), (model.head.bias, 0)):
        assert found[id(part)] == (pytest.approx(rate), lasting)


@pytest.mark.parametrize("latent", [HALF, Dense])
def test_what_is_added_as_one_group_has_rates_and_decay_of_its_kinds(latent):
    model = network(latent)
    for part in (model.body, model.head):
        part.requires_grad_(False)
    optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
    assert [group["name"] for group in optimizer.param_groups] == ["weight", "norm"]
    BaseFinetuning.unfreeze_and_add_param_group([model.body, model.head], optimizer, lr=0.002)
    check_added(model, optimizer, 0.002)
    # the last one's rate is that of all, for who goes on to change it
    assert optimizer.param_groups[-1]["lr"] == 0.002
    optimizer.param_groups[-1]["lr"] = 0.006
    check_added(model, optimizer, 0.006)
    assert optimizer.param_groups[0]["lr"] == 0.01
    # a schedule that was there before goes on, and the added groups follow it
    optimizer.param_groups[0]["lr"] = 0.005
    check_added(model, optimizer, 0.003)
    assert len(settings(optimizer)) == len(list(model.parameters()))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_any_schedule_goes_on_where_groups_are_added_and_they_follow_it(schedule):
    model = network()
    model.head.requires_grad_(False)
    optimizer = make_optimizer(model, SGD)
    scheduler = schedule(optimizer)
    train(model, optimizer, scheduler, range(2))
    part = optimizer.param_groups[0]["lr"] / 4
    BaseFinetuning.unfreeze_and_add_param_group(model.head, optimizer, lr=part)
    train(model, optimizer, scheduler, range(2, 5))
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"] / 4)


def test_options_that_are_given_count_and_a_name_is_kept():
    model = network()
    model.body.requires_grad_(False)
    model.head.requires_grad_(False)
    optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
    optimizer.add_param_group(
        {"params": [*model.body.parameters(), *model.head.parameters()], "weight_decay": 0.3, "name": "the/rest"}
    )
    check_added(model, optimizer, 0.01, decay=0.3)
    assert [group["name"] for group in optimizer.param_groups[-2:]] == ["norm/the.rest", "weight/the.rest"]
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": model.head.parameters()})
    late = nn.Linear(2, 2)  # no part of the network
    optimizer.add_param_group({"params": late.parameters(), "name": "the.rest"})
    names = [group["name"] for group in optimizer.param_groups]
    assert len(set(names)) == len(names)  # or the rates cannot be logged
    assert settings(optimizer)[id(late.weight)] == (0.01, 0.1) and settings(optimizer)[id(late.bias)] == (0.01, 0)


def test_a_parameter_that_lightning_leaves_out_is_trained_with_the_others():
    # a new bias equals the batch norm's, and Lightning compares values
    model = network()
    nn.init.zeros_(model.body[2].scale.alpha)
    model.body.requires_grad_(False)
    optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
    with pytest.warns(UserWarning, match="already exist"):
        BaseFinetuning.unfreeze_and_add_param_group(model.body, optimizer, lr=0.002)
    left_out = model.body[2].scale.alpha
    assert id(left_out) not in settings(optimizer)
    left_out.grad = torch.ones_like(left_out)
    optimizer.step()
    assert settings(optimizer)[id(left_out)] == (pytest.approx(0.0002), 0)
    assert torch.allclose(left_out, torch.tensor(-0.0002))


class Eager(torch.optim.SGD):
    """Has a state for each parameter from the start, as Adagrad of older versions of torch."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["begun"] = torch.ones(())


def test_states_of_frozen_parameters_wait_until_they_are_added():
    model = network()
    model.head.requires_grad_(False)
    optimizer = make_optimizer(model, lambda groups: Eager(groups, lr=0.1))
    assert len(optimizer.state_dict()["state"]) == len(settings(optimizer)) == len(list(model.parameters())) - 2
    BaseFinetuning.unfreeze_and_add_param_group(model.head, optimizer, lr=0.1)
    assert {id(p) for p in optimizer.state} == set(settings(optimizer)) == {id(p) for p in model.parameters()}
    assert all(state["begun"] == 1 for state in optimizer.state.values())


def test_bop_flips_latents_that_are_added():
    model = network(Dense)
    for _, layer in named_binary_layers(model):
        layer.weight_gradient = "identity"
    model.body.requires_grad_(False)
    model.head.requires_grad_(False)
    optimizer = make_optimizer(model, lambda g: Bop(g, lr=0.01, gamma=0.5, threshold=1e-9), alpha_lr=0.1)
    BaseFinetuning.unfreeze_and_add_param_group([model.body, model.head], optimizer, lr=0.005)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["latent/added1"] == pytest.approx(0.25) and rates["alpha/added1"] == pytest.approx(0.0005)
    before = model.body[0].latent.weight.detach().clone()
    head = model.head.weight.detach().clone()
    model(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    flipped = model.body[0].latent.weight != before
    assert flipped.any() and torch.equal(model.body[0].latent.weight.abs(), before.abs())
    assert not torch.equal(head, model.head.weight)


def test_added_groups_are_there_again_in_a_network_that_was_frozen_anew_under_another_seed():
    def make(seed):
        model = network(seed=seed)
        model.body.requires_grad_(False)
        optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
        return model, optimizer, warmup_cosine(optimizer, 12, 0.2)

    whole, optimizer, scheduler = make(0)
    train(whole, optimizer, scheduler, range(3))
    early = copy.deepcopy([part.state_dict() for part in (whole, optimizer, scheduler)])
    BaseFinetuning.unfreeze_and_add_param_group(whole.body, optimizer, lr=0.002)
    train(whole, optimizer, scheduler, range(3, 6))
    late = copy.deepcopy([part.state_dict() for part in (whole, optimizer, scheduler)])
    expected = train(whole, optimizer, scheduler, range(6, 9))
    for saved, first in ((early, 3), (late, 6)):
        broken, optimizer, scheduler = make(5)
        for part, state in zip((broken, optimizer, scheduler), saved, strict=True):
            part.load_state_dict(state)
        if first == 3:
            BaseFinetuning.unfreeze_and_add_param_group(broken.body, optimizer, lr=0.002)
            train(broken, optimizer, scheduler, range(3, 6))
        # relative rates of what was frozen when it was saved are those of the first seed too
        assert train(broken, optimizer, scheduler, range(6, 9)) == expected
        for name, value in whole.state_dict().items():
            assert torch.equal(value, broken.state_dict()[name]), name


def test_all_frozen_is_an_error(check_one_line):
    model = network().requires_grad_(False)
    with pytest.raises(ValueError) as error:
        make_optimizer(model, ADAMW)
    check_one_line(error, "all parameters of Sequential are frozen", "free some", BackboneFinetuning.__name__)


def test_groups_are_those_of_the_network():
    model = network()
    optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
    for group, kind in zip(optimizer.param_groups, parameter_groups(model, 0.1), strict=True):
        assert (group["name"], group["lr_scale"]) == (kind.name, kind.lr_scale)
        assert [id(p) for p in group["params"]] == [id(p) for p in kind.parameters]
