"""Weights that are cut into pieces: every entry once, and each piece stepped as a weight of its own."""

import itertools
import math

import pytest
import torch
from fixtures.stepped_weights import gradients, latents, parameters, train
from pytorch_optimizer import SOAP as TheirSOAP
from torch import nn

from bnnlight.optim import SOAP
from bnnlight.optim.pieces import Pieces


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("modes", "block", "behind"), [("all", 4, 2), ("matrix", 12, 1)])
def test_blocks_are_stepped_as_weights_of_their_own(modes, block, behind):
    """Each of another library's, as a tensor or as a matrix; what lacks to whole blocks is filled with zeros."""
    whole = parameters([(15 if modes == "matrix" else 7, 6, 2, 2)])
    half = (len(whole[0]) + 1) // 2
    rows, columns = (slice(0, half), slice(half, None)), (slice(0, 3), slice(3, 6))
    parts = [nn.Parameter(whole[0].detach()[r, c].flatten(behind)) for r in rows for c in columns]
    shared = {"lr": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.1, "eps": 1e-8}
    one = SOAP(latents(whole), **shared, modes=modes, relative_eps=0.0, spread=False, interval=5, block=block)
    two = TheirSOAP(parts, **shared, precondition_frequency=5)
    for (gradient,) in gradients(whole, 30):
        whole[0].grad = gradient
        for part, (r, c) in zip(parts, itertools.product(rows, columns), strict=True):
            part.grad = gradient[r, c].flatten(behind)
        one.step()
        two.step()
        for part, (r, c) in zip(parts, itertools.product(rows, columns), strict=True):
            assert (whole[0][r, c].flatten(behind) - part).norm() <= 1e-5 * part.norm()


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_few_pieces_at_once_are_stepped_as_all_together(products, monkeypatch):
    one, two = parameters([(8, 6, 3, 3)] * 5, torch.float32), parameters([(8, 6, 3, 3)] * 5, torch.float32)
    with torch.no_grad():
        for p, q in zip(one, two, strict=True):
            q.copy_(p)
    options = {"block": 4, "interval": 3, "products": products}
    train(SOAP(latents(one), **options), one, 7)
    monkeypatch.setattr("bnnlight.optim.soap._AT_ONCE", 3 * 4 * 9 * 3)  # of twenty pieces three
    train(SOAP(latents(two), **options), two, 7)
    for p, q in zip(one, two, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def assert_added(pieces, cut, x):
    """Pieces go back to where they came from, in whatever order the entries of the weights lie."""
    for order in (range(x.ndim), reversed(range(x.ndim))):
        order = list(order)
        weights = torch.ones(x.shape).permute(order).contiguous().permute(torch.tensor(order).argsort().tolist())
        pieces.add(cut, list(weights), 2)
        assert torch.equal(weights, 1 + 2 * x)


def test_pieces_hold_every_entry_once_and_are_no_larger_than_asked():
    for shape, limit, size, number in (
        ((7, 5, 3, 3), 4, (4, 3, 3), 12), ((513, 2), 256, (171, 1, 2), 3), ((4, 4, 2), 9, (4, 2, 4), 1),
    ):  # fmt: skip
        pieces = Pieces(shape, dict.fromkeys(range(3), limit))
        assert (pieces.size, pieces.number) == (size, number)
        x = torch.arange(1.0, 2 * math.prod(shape) + 1).view(2, shape[0], *shape[2:], shape[1])
        cut = pieces.cut(x)
        assert cut.shape == (2 * number, *size)
        assert sorted(cut[cut > 0].tolist()) == x.flatten().tolist()
        assert_added(pieces, cut, x)
    # input channels stay whole in a matrix's columns, but for a window that is larger than the limit
    for shape, size, number in (((6, 5, 3, 3), (6, 1, 18), 3), ((4, 3, 5, 5), (4, 1, 25), 3), ((30, 7), (15, 1, 7), 2)):
        pieces = Pieces(shape, {0: 20, 2: 20}, as_matrix=True)
        assert (pieces.size, pieces.number) == (size, number)
        x = torch.arange(1.0, 2 * math.prod(shape) + 1).view(2, shape[0], *shape[2:], shape[1])
        cut = pieces.cut(x)
        assert sorted(cut[cut > 0].tolist()) == x.flatten().tolist()
        assert_added(pieces, cut, x)
        # a channel's pixels are in one piece
        channel = x[0, 0, ..., 1].flatten().tolist()
        assert max(sum(entry in piece for entry in channel) for piece in cut.flatten(1).tolist()) == len(channel)
    # a dimension without a limit stays whole
    assert Pieces((9, 8), {0: 2}).size == (2, 1, 8)


@pytest.mark.parametrize("shape", [(4, 6, 1, 1), (6, 4), (2, 9), (9, 2, 3), (3, 3, 3, 3), (1, 8, 2, 2), (5, 1, 1, 5)])
@pytest.mark.parametrize("modes", ["matrix", "all", "output", "input", "kernel"])
def test_single_weights_of_any_shape_are_cut(shape, modes):
    params = parameters([shape])
    before = params[0].detach().clone()
    train(SOAP(latents(params), block=3, interval=2, modes=modes), params, 5)
    assert params[0].isfinite().all() and (params[0] != before).all()


def test_a_mode_of_ten_thousand_is_cut():
    params = parameters([(10_000, 3)], torch.float32)
    optimizer = SOAP(latents(params))
    train(optimizer, params, 3)
    state = optimizer.state[params[0]]
    assert state["basis_output"].shape == (79, 127, 127) and state["basis_input"].shape == (79, 3, 3)
