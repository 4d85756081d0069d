"""An optimizer that takes matrices alone, in a network of convolutions, batch norms and α."""

import copy
import functools

import pytest
import pytorch_optimizer
import torch
from torch import nn

from bnnlight.nn import BinaryConv2d, Dense, Tucker, factorize
from bnnlight.optim import AsMatrices
from bnnlight.tasks.optimization import make_optimizer

MUON = functools.partial(torch.optim.Muon, lr=0.01, momentum=0.8, weight_decay=0.1)


def network(latent=Dense):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), BinaryConv2d(4, 6, 3, scale="channel"))
    return factorize(model, latent) if latent is not Dense else model


def gradients(model, seed):
    torch.manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn_like(p)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_latents_are_stepped_as_matrices_and_all_else_by_adamw(layout):
    model = network().to(memory_format=layout)
    optimizer = make_optimizer(model, MUON)
    latent = model[2].latent.weight
    others = {n: nn.Parameter(p.detach().clone()) for n, p in model.named_parameters() if p is not latent}
    decays = {n: 0.1 if n == "0.weight" else 0.0 for n in others}
    adamw = torch.optim.AdamW([{"params": [p], "weight_decay": decays[n]} for n, p in others.items()], lr=0.01)
    matrix = nn.Parameter(latent.detach().reshape(6, -1).clone())
    muon = torch.optim.Muon([matrix], lr=0.01, momentum=0.8, weight_decay=0.0)
    for seed in range(4):
        gradients(model, seed)
        matrix.grad = latent.grad.reshape(6, -1).clone()
        for name, p in model.named_parameters():
            if name in others:
                others[name].grad = p.grad.clone()
        for each in (optimizer, adamw, muon):
            each.step()
        torch.testing.assert_close(latent.reshape(6, -1), matrix)
        for name, p in model.named_parameters():
            if name in others:
                torch.testing.assert_close(p, others[name])


THEIRS = functools.partial(pytorch_optimizer.Muon, lr=0.01)


COUNTS = functools.partial(pytorch_optimizer.AdaMuon, lr=0.01)
"""Keeps the number of its steps in its groups."""


@pytest.mark.parametrize("make", [MUON, THEIRS, COUNTS], ids=["torch", "pytorch_optimizer", "AdaMuon"])
@pytest.mark.parametrize("latent", [Dense, functools.partial(Tucker, rank=0.5)], ids=["Dense", "Tucker"])
def test_its_state_goes_on(latent, make):
    whole, broken = network(latent), network(latent)
    one, two = make_optimizer(whole, make), make_optimizer(broken, make)
    for seed in range(6):
        if seed == 3:
            state = two.state_dict()
            two = make_optimizer(broken, make)
            two.load_state_dict(state)
        for model, optimizer in ((whole, one), (broken, two)):
            gradients(model, seed)
            optimizer.step()
    start = network(latent)
    for p, q, before in zip(whole.parameters(), broken.parameters(), start.parameters(), strict=True):
        assert torch.equal(p, q) and not torch.equal(p, before)


def test_without_binary_layers_it_is_refused(check_one_line):
    with pytest.raises(ValueError) as error:
        make_optimizer(nn.Sequential(nn.Linear(3, 4)), MUON)
    check_one_line(error, "takes matrices alone", "no binary layers")


def test_an_error_that_is_not_of_vectors_stays(check_one_line):
    with pytest.raises(ValueError) as error:
        make_optimizer(network(), functools.partial(torch.optim.Muon, lr=-1.0))
    assert "lr" in str(error.value).lower() or "learning rate" in str(error.value).lower()


def test_a_copy_goes_on_by_itself():
    model = network()
    optimizer = make_optimizer(model, MUON)
    gradients(model, 0)
    optimizer.step()
    assert isinstance(optimizer, AsMatrices)
    copied = copy.deepcopy(optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    for group in copied.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    copied.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_one_that_refuses_several_groups_is_not_taken_for_one_of_matrices():
    with pytest.raises(ValueError, match="LBFGS doesn't support per-parameter options"):
        make_optimizer(network(), torch.optim.LBFGS)


def test_what_an_optimizer_keeps_in_a_group_is_that_groups_own():
    """Tucker has groups of several rates; with one count for all of them AdaMuon's corrections would be others."""
    model = network(functools.partial(Tucker, rank=0.5))
    optimizer = make_optimizer(model, COUNTS)
    groups = {group["name"]: group for group in optimizer.param_groups if group["name"].startswith("latent")}
    assert len({group["lr"] for group in groups.values()}) > 1
    alone = []
    for group in groups.values():
        (p,) = group["params"]
        matrix = nn.Parameter(p.detach().flatten(1).clone())
        their = COUNTS([{"params": [matrix], "use_muon": True, "lr": group["lr"], "weight_decay": 0.0}])
        alone.append((p, matrix, their))
    for seed in range(4):
        gradients(model, seed)
        for p, matrix, their in alone:
            matrix.grad = p.grad.reshape(matrix.shape).clone()
            their.step()
        optimizer.step()
    for p, matrix, _ in alone:
        torch.testing.assert_close(p.reshape(matrix.shape), matrix)
