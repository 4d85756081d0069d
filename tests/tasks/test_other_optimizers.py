"""Checkpoints of another optimizer, or of a network in another memory format."""

import copy
import functools

import pytest
import pytorch_optimizer
import torch
from torch import nn

import bnnlight.optim
from bnnlight.nn import BinaryConv2d, Dense, Tucker, factorize
from bnnlight.optim import SOAP, Muon
from bnnlight.tasks.optimization import make_optimizer

HALF = functools.partial(Tucker, rank=0.5)
ADAMW = functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
SGD = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=0.1)
SOAPS = functools.partial(SOAP, lr=0.01, weight_decay=0.1, interval=3)
MUON = functools.partial(Muon, lr=0.01, weight_decay=0.1)


def network(latent=HALF):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), BinaryConv2d(4, 6, 3), nn.Conv2d(6, 2, 1))
    return factorize(model, latent)


def train(model, optimizer, steps):
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("first", [ADAMW, SGD, SOAPS, MUON], ids=["AdamW", "SGD", "SOAP", "Muon"])
@pytest.mark.parametrize("second", [ADAMW, SGD, SOAPS, MUON], ids=["AdamW", "SGD", "SOAP", "Muon"])
def test_the_state_of_another_optimizer_is_refused(first, second, check_one_line):
    """Of the moments of SOAP, in its bases, AdamW would make steps without a word."""
    model = network()
    saved, other = make_optimizer(model, first), make_optimizer(model, second)
    train(model, saved, range(2))
    if first is second:
        other.load_state_dict(saved.state_dict())
        return
    for state in (saved.state_dict(), {k: v for k, v in saved.state_dict().items() if k != "optimizer"}):
        if "optimizer" in state or {first, second} & {SGD} or second in (SOAPS, MUON):
            with pytest.raises(ValueError) as error:
                other.load_state_dict(state)
            check_one_line(error, "the checkpoint is of", "that the run began with")


@pytest.mark.parametrize("name", ["SOAP", "Muon"])
def test_optimizers_of_one_name_from_two_packages_are_told_apart(name, check_one_line):
    latent = Dense if name == "Muon" else HALF
    models = [network(latent) for _ in range(2)]
    kinds = [getattr(package, name) for package in (bnnlight.optim, pytorch_optimizer)]
    for first, second in (kinds, kinds[::-1]):
        saved, other = (
            make_optimizer(m, functools.partial(k, lr=0.01)) for m, k in zip(models, (first, second), strict=True)
        )
        train(models[0], saved, range(3))
        with pytest.raises(ValueError) as error:
            other.load_state_dict(saved.state_dict())
        packages = [kind.__module__.partition(".")[0] for kind in (first, second)]
        check_one_line(error, *(f"{package}.{name}" for package in packages), "that the run began with")


@pytest.mark.parametrize("fused", [False, True])
def test_moments_of_another_memory_format_stay_at_their_weights(fused):
    """torch 2.14.1's fused kernel of a CPU takes the moments by their places in memory, without a word."""
    make = functools.partial(torch.optim.AdamW, lr=0.01, fused=fused)
    model = network(Dense)
    optimizer = make_optimizer(model, make)
    train(model, optimizer, range(3))
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    made = make_optimizer(other, make)
    made.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        p.grad = torch.randn_like(p)
        q.grad = torch.empty_like(q).copy_(p.grad)
    optimizer.step()
    made.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)
