"""Whose moments a checkpoint's are: under other seeds, in other networks, and of before groups were named by layer."""

import copy
import functools

import pytest
import torch
from torch import nn

from bnnlight.nn import CP, BinaryConv2d, Dense, Holistic, TensorTrain, Tucker, factorize, named_binary_layers
from bnnlight.tasks.optimization import make_optimizer, warmup_cosine
from bnnlight.tasks.optimizer_states import renew_checkpoint

ADAMW = functools.partial(torch.optim.AdamW, lr=0.01)
LATENTS = [functools.partial(kind, rank=0.5) for kind in (Tucker, CP, TensorTrain, Holistic)]


def network(latent, seed, channels=(8, 8, 8), scale="channel"):
    torch.manual_seed(seed)
    layers = [BinaryConv2d(n, m, 3, scale=scale) for n, m in zip((3, *channels), channels, strict=False)]
    return factorize(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), *layers), latent)


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(2, 3, 12, 12)).square().mean().backward()
    optimizer.step()


def moments(model, optimizer):
    return {name: optimizer.state[p]["exp_avg"] for name, p in model.named_parameters() if p in optimizer.state}


def check_same(model, optimizer, saved):
    found = moments(model, optimizer)
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], value) for name, value in saved.items())


@pytest.mark.parametrize("latent", LATENTS, ids=["Tucker", "CP", "TensorTrain", "Holistic"])
def test_a_checkpoint_goes_on_under_forty_seeds_with_every_moment_at_its_own_weight(latent):
    model = network(latent, 0)
    optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
    step(model, optimizer)
    saved, rates = moments(model, optimizer), [group["lr_scale"] for group in optimizer.param_groups]
    state = copy.deepcopy(optimizer.state_dict())
    assert len({tuple(value.shape) for value in saved.values()}) < len(saved)  # so that they could be mixed up
    others = 0
    for seed in range(1, 41):
        other = network(latent, seed)
        made = make_optimizer(other, ADAMW, alpha_lr=0.1)
        others += [group["lr_scale"] for group in made.param_groups] != rates
        made.load_state_dict(state)
        check_same(other, made, saved)
        assert [group["lr_scale"] for group in made.param_groups] == rates
    assert others > 10


@pytest.mark.parametrize("scale", ["none", "spatial"])
def test_groups_of_a_state_may_stand_in_any_order(scale):
    if scale == "spatial":
        model = nn.Sequential(BinaryConv2d(3, 8, 3, scale=scale, output_size=(10, 10)))
    else:
        model = network(LATENTS[0], 0, scale=scale)
    optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
    step(model, optimizer)
    saved, state = moments(model, optimizer), copy.deepcopy(optimizer.state_dict())
    state["param_groups"].reverse()
    optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
    optimizer.load_state_dict(state)
    check_same(model, optimizer, saved)


def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_loaded(check_one_line):
    model = network(LATENTS[0], 0)
    optimizer = make_optimizer(model, ADAMW)
    step(model, optimizer)
    state = optimizer.state_dict()

    def refused(model, make, *parts):
        made = make_optimizer(model, make)
        before = [dict(group) for group in made.param_groups]
        with pytest.raises(ValueError) as error:
            made.load_state_dict(copy.deepcopy(state))
        check_one_line(error, *parts)
        assert made.param_groups == before and not made.state

    refused(network(Dense, 0), ADAMW, "of another network: this one has no 2.latent.core;")
    refused(network(LATENTS[0], 0, (8, 8, 6)), ADAMW, "4.scale.alpha is 8 there and 6 here")
    refused(model, functools.partial(torch.optim.SGD, lr=0.1), "is of AdamW, and the optimizer is SGD")
    model = nn.Sequential(*model, nn.Linear(2, 2))
    refused(model, ADAMW, "knows nothing of 2 parameters that are trained now (first 5.weight)")


def old_optimizer(model):
    """As it was before: factors in groups by rate, in the order of their first parameters; and the names in them."""
    scales = {
        p: layer.latent.lr_scales[n]
        for _, layer in named_binary_layers(model)
        for n, p in layer.latent.named_parameters()
    }
    alphas = {layer.scale.alpha for _, layer in named_binary_layers(model) if layer.scale.name == "channel"}
    groups, names = {}, {}
    for name, parameter in model.named_parameters():
        rest = ("norm", 1.0) if parameter.ndim < 2 else ("weight", 1.0)
        rate = float(f"{scales[parameter]:.2g}") if parameter in scales else 0.1 if parameter in alphas else rest[1]
        kind = f"latent@{rate:g}" if parameter in scales else "alpha" if parameter in alphas else rest[0]
        groups.setdefault((kind, rate), []).append(parameter)
        names.setdefault(kind, []).append(name)
    return torch.optim.AdamW(
        [{"params": params, "name": kind, "lr": 0.01 * rate} for (kind, rate), params in groups.items()]
    ), names


def old_checkpoint(model, seed):
    optimizer, names = old_optimizer(model)
    scheduler = warmup_cosine(optimizer, 10, 0.2)
    torch.manual_seed(seed)
    start = torch.get_rng_state()
    step(model, optimizer)
    scheduler.step()
    random = {"random": {"torch": start}}
    return (
        moments(model, optimizer),
        names,
        {
            "optimizer_states": [copy.deepcopy(optimizer.state_dict())],
            "lr_schedulers": [copy.deepcopy(scheduler.state_dict())],
            "processes": [random],
        },
    )


@pytest.mark.parametrize("latent", LATENTS, ids=["Tucker", "CP", "TensorTrain", "Holistic"])
def test_an_older_checkpoint_goes_on_with_its_moments_and_schedule(latent):
    saved, names, checkpoint = old_checkpoint(network(latent, 0), seed=0)
    assert len(checkpoint["optimizer_states"][0]["param_groups"]) == len(names)
    torch.manual_seed(0)  # the seed of the run, from whose checkpoint it is known that the start is the same
    model = network(latent, 0)
    torch.manual_seed(0)
    renew_checkpoint(checkpoint, model, 0.1)
    optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
    scheduler = warmup_cosine(optimizer, 10, 0.2)
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    scheduler.load_state_dict(checkpoint["lr_schedulers"][0])
    check_same(model, optimizer, saved)
    # two of ten steps warm up, in thirds: the third is at the peak
    for share in (2 / 3, 1):
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(0.01 * share * group["lr_scale"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("latent", LATENTS, ids=["Tucker", "CP", "TensorTrain", "Holistic"])
def test_an_older_checkpoint_is_never_loaded_into_other_weights(latent):
    """Under other seeds what cannot be told is refused; what can, by sizes and shapes, is right."""
    saved, _, checkpoint = old_checkpoint(network(latent, 0), seed=0)
    for seed in range(1, 21):
        model, tried = network(latent, seed), copy.deepcopy(checkpoint)
        torch.manual_seed(seed)
        renew_checkpoint(tried, model, 0.1)
        optimizer = make_optimizer(model, ADAMW, alpha_lr=0.1)
        try:
            optimizer.load_state_dict(tried["optimizer_states"][0])
        except ValueError as error:
            assert "cannot be told" in str(error) and "seed that the run began with" in str(error)
        else:
            check_same(model, optimizer, saved)


def test_an_older_checkpoint_whose_groups_only_look_like_the_networks_own_is_refused():
    # the same rates as often, in the same order of first parameters, at other layers
    def make(rates):
        model = network(functools.partial(CP, rank=2), 0, (3, 3, 3, 3))
        for (_, layer), rate in zip(named_binary_layers(model), rates, strict=True):
            layer.latent.lr_scales = dict.fromkeys(layer.latent.lr_scales, rate)
        return model

    _, _, checkpoint = old_checkpoint(make([2.1, 2.2, 2.2, 2.1]), seed=0)
    other = make([2.1, 2.2, 2.1, 2.2])
    torch.manual_seed(1)
    renew_checkpoint(checkpoint, other, 0.1)
    with pytest.raises(ValueError, match="cannot be told"):
        make_optimizer(other, ADAMW, alpha_lr=0.1).load_state_dict(checkpoint["optimizer_states"][0])


@pytest.mark.parametrize("latent", [Dense, functools.partial(Holistic, rank=0.5)])
def test_an_older_state_that_leaves_one_possibility_is_mapped_whatever_the_seed(latent):
    model = network(latent, 0, (4, 6, 5)) if latent is Dense else network(latent, 0, (4,))
    if latent is Dense:
        kinds = {"weight": [], "norm": [], "latent": [], "alpha": []}
        for name, parameter in model.named_parameters():
            kind = (
                "latent"
                if "latent" in name
                else "alpha"
                if "alpha" in name
                else "norm"
                if parameter.ndim < 2
                else "weight"
            )
            kinds[kind].append(parameter)
        optimizer = torch.optim.AdamW([{"params": params, "name": kind} for kind, params in kinds.items()], lr=0.01)
    else:
        optimizer, _ = old_optimizer(model)
    step(model, optimizer)
    saved = moments(model, optimizer)
    other = network(latent, 3, (4, 6, 5)) if latent is Dense else network(latent, 3, (4,))
    made = make_optimizer(other, ADAMW, alpha_lr=0.1)
    made.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    check_same(other, made, saved)


def test_a_new_checkpoint_stays_as_it_is():
    model = network(LATENTS[0], 0)
    optimizer = make_optimizer(model, ADAMW)
    checkpoint = {"optimizer_states": [optimizer.state_dict()], "lr_schedulers": []}
    before = copy.deepcopy(checkpoint)
    renew_checkpoint(checkpoint, model, 0.1)
    assert checkpoint == before
