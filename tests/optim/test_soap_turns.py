"""When SOAP renews its bases and covariances: in turns, up to a last renewal, and not where one is not finite."""

import itertools
import math

import pytest
import torch
from fixtures.stepped_weights import gradients, latents, parameters, train

from bnnlight.optim import SOAP
from bnnlight.optim.eigenbasis import renewed


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_work_is_spread_over_the_steps_of_an_interval(monkeypatch):
    params = parameters([(16, 8, 3, 3)] * 6 + [(32, 16, 1, 1)] * 2)
    optimizer = SOAP(latents(params), interval=4, modes="channels")
    work, turns = [], []

    def count(matrix, basis):
        work[-1] += len(basis) * basis.shape[-1] ** 3
        turns.append(len(basis))
        return renewed(matrix, basis)

    monkeypatch.setattr("bnnlight.optim.soap.renewed", count)
    for found in gradients(params, 9):
        work.append(0)
        for p, g in zip(params, found, strict=True):
            p.grad = g
        optimizer.step()
    whole = 6 * (16**3 + 8**3) + 2 * (32**3 + 16**3)
    assert sum(work[1:5]) == sum(work[5:9]) == whole and sum(turns) == 2 * 16
    # two bases make up most of it, and stand in two steps
    assert max(work[1:]) < 0.5 * whole


@pytest.mark.parametrize("spread", [True, False])
def test_covariances_take_turns_too(spread):
    """Of two weights of two pieces each, one piece is due in each step, or all in every third."""
    params = parameters([(6, 4), (6, 4)])
    optimizer = SOAP(latents(params), block=3, modes="output", covariance_interval=3, betas=(0.9, 0.8), spread=spread)
    seen = {}
    for age, each in enumerate(gradients(params, 8)):
        for number, (p, g) in enumerate(zip(params, each, strict=True)):
            p.grad = g
            for piece in range(2):
                square = g[3 * piece : 3 * piece + 3] @ g[3 * piece : 3 * piece + 3].T
                turn = (age + 2 * number + piece) % 3 if spread else age % 3
                last = seen.get((number, piece))
                if last is None:
                    seen[number, piece] = (1 - 0.8) * square
                elif turn == 0:
                    seen[number, piece] = 0.8**3 * last + (1 - 0.8**3) * square
        optimizer.step()
        for number, p in enumerate(params):
            covariances = optimizer.state[p]["covariance_output"]
            torch.testing.assert_close(covariances, torch.stack([seen[number, piece] for piece in range(2)]))


def test_bases_stay_behind_the_last_renewal():
    params = parameters([(6, 4, 3, 3)])
    optimizer = SOAP(latents(params), interval=2, covariance_interval=1, last_renewal=4)
    state = optimizer.state[params[0]]
    seen = []
    for found in gradients(params, 10):
        params[0].grad = found[0]
        optimizer.step()
        seen.append((state["basis_output"].clone(), state["covariance_input"].clone()))
    same = [all(torch.equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in itertools.pairwise(seen)]
    assert same == [False] * 4 + [True] * 5


def test_a_covariance_that_is_not_finite_begins_anew_and_says_so_once(capsys):
    params = parameters([(6, 4), (6, 4)])
    optimizer = SOAP(latents(params), interval=2, spread=False)
    train(optimizer, params, 4)
    kept = optimizer.state[params[0]]["basis_output"].clone()
    other = optimizer.state[params[1]]["basis_output"].clone()
    for _ in range(3):
        optimizer.state[params[0]]["covariance_output"].fill_(math.inf)
        train(optimizer, params, 2)
    assert torch.equal(optimizer.state[params[0]]["basis_output"], kept)
    assert not torch.equal(optimizer.state[params[1]]["basis_output"], other)
    assert all(p.isfinite().all() for p in params)
    assert optimizer.state[params[0]]["covariance_output"].isfinite().all()
    assert capsys.readouterr().err.count("is not finite") == 1


def test_other_pieces_of_a_weight_are_renewed_beside_one_that_is_not_finite():
    params = parameters([(6, 4)])
    optimizer = SOAP(latents(params), block=3, modes="output", interval=2, covariance_interval=1, spread=False)
    train(optimizer, params, 3)
    state = optimizer.state[params[0]]
    before = state["basis_output"].clone()
    state["covariance_output"][0].fill_(math.nan)
    train(optimizer, params, 2)
    first, second = state["basis_output"]
    assert torch.equal(first, before[0])
    assert (second - before[1]).norm() > 1e-3
    torch.testing.assert_close(second.T @ second, torch.eye(3, dtype=second.dtype))
