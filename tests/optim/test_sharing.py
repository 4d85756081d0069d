"""Processes that share the work of a step: equal to one that does all of it, also from a checkpoint on."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from bnnlight.nn import BinaryConv2d
from bnnlight.optim import SOAP, Muon
from bnnlight.optim.sharing import Sharing
from bnnlight.tasks.optimization import make_optimizer

KINDS = {
    "SOAP": lambda groups, **o: SOAP(groups, interval=3, block=4, **o),
    "Muon": lambda groups, **o: Muon(groups, **o),
}
BOTH = pytest.mark.parametrize("kind", KINDS)
NONE = ((0, 6), (1, 6), (0, 8), (2, 4), (5, 2))
"""(step, parameter) without a gradient: layers of one shape differ in age, and some begin later than others."""
SAVED = 7
END = 13


def made(kind, **options):
    """Three layers of one shape, one larger, a real one and vectors, in float64, with their optimizer."""
    torch.manual_seed(0)
    shapes = ((4, 4), (4, 4), (4, 4), (4, 9))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *(BinaryConv2d(i, o, 3, scale="channel") for i, o in shapes)).double()
    model[2].to(memory_format=torch.channels_last)
    return model, make_optimizer(model, lambda groups: KINDS[kind](groups, lr=0.01, **options))


def step(model, optimizer, steps):
    for number in steps:
        generator = torch.Generator().manual_seed(number)
        for index, p in enumerate(model.parameters()):
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            if (number, index) in NONE:
                p.grad = None
        optimizer.step()


def size_of(optimizer):
    return sum(v.nbytes for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor))


def content(model, optimizer):
    return {"weights": copy.deepcopy(model.state_dict()), "state": copy.deepcopy(optimizer.state_dict())}


def alone(kind, loaded=None):
    model, optimizer = made(kind)
    if loaded is None:
        step(model, optimizer, range(SAVED))
        saved = content(model, optimizer)
    else:
        saved = loaded
        model.load_state_dict(loaded["weights"])
        optimizer.load_state_dict(copy.deepcopy(loaded["state"]))  # whose tensors it steps
    step(model, optimizer, range(SAVED, END))
    return saved, content(model, optimizer), size_of(optimizer)


def together(rank, number, kind, folder, loaded):
    """What one of several processes does; rank zero writes what a checkpoint would hold, all what they keep."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=number)
    model, optimizer = made(kind, share=True)
    found = []
    if loaded is None:
        step(model, optimizer, range(SAVED))
        found.append(gathered(model, optimizer, rank))
    else:
        model.load_state_dict(loaded["weights"])
        optimizer.load_state_dict(loaded["state"])
        found.append(gathered(model, optimizer, rank))  # before any step, as a run may be stopped at once
    step(model, optimizer, range(SAVED, END))
    found.append(gathered(model, optimizer, rank))
    with pytest.raises(ValueError, match="a part of its state in each process: call consolidate_state_dict"):
        optimizer.state_dict()
    torch.save((found, model.state_dict(), size_of(optimizer)), folder / f"{rank}.pt")
    dist.destroy_process_group()


def gathered(model, optimizer, rank):
    optimizer.consolidate_state_dict()
    return content(model, optimizer) if rank == 0 else None


@pytest.fixture
def in_processes(tmp_path):
    def run(number, kind, loaded=None):
        folder = tmp_path / f"{number}-{loaded is None}"
        folder.mkdir()
        # forked, as each would else take seconds to import
        torch.multiprocessing.start_processes(together, (number, kind, folder, loaded), number, start_method="fork")
        return [torch.load(folder / f"{rank}.pt") for rank in range(number)]

    return run


def check_equal(one, two):
    """1e-9 of each tensor's norm, and the same numbers beside them."""
    if isinstance(one, torch.Tensor):
        assert one.shape == two.shape and one.dtype == two.dtype
        assert (one - two).norm() <= 1e-9 * one.norm()
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            check_equal(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            check_equal(a, b)
    else:
        assert one == two


@BOTH
def test_processes_step_as_one_does_and_their_checkpoint_is_that_of_one(kind, in_processes):
    saved, end, whole = alone(kind)
    ranks = in_processes(2, kind)
    check_equal(saved, ranks[0][0][0])
    check_equal(end, ranks[0][0][1])
    # all have the same bits, and none has all of the state
    for key, value in ranks[0][1].items():
        assert torch.equal(value, ranks[1][1][key])
    assert all(0.25 * whole < size < 0.75 * whole for _, _, size in ranks)


@BOTH
def test_a_checkpoint_goes_on_in_any_number_of_processes(kind, in_processes):
    _, end, whole = alone(kind)
    (found, _, _), _ = in_processes(2, kind)
    check_equal(end, alone(kind, found[0])[1])
    ranks = in_processes(3, kind, found[0])
    again = ranks[0][0]
    check_equal(found[0], again[0])
    check_equal(end, again[1])
    assert all(size < 0.6 * whole for _, _, size in ranks)  # of what was loaded the rest is let go


def test_work_is_divided_evenly_and_what_comes_later_gets_an_owner_then(monkeypatch):
    monkeypatch.setattr("bnnlight.optim.sharing.num_processes", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    sharing = Sharing()
    params, later = ([nn.Parameter(torch.zeros(1)) for _ in range(number)] for number in (5, 2))
    sharing.assign(dict(zip(params, (128, 128, 768, 128, 128), strict=True)))
    assert [sharing._is_own(p) for p in params] == [False, False, True, False, False]
    # 560 to the one with 512, 128 to that with 768
    sharing.assign(dict(zip([*later, *params], (560, 128, 0, 0, 0, 0, 0), strict=True)))
    assert [sharing._is_own(p) for p in [*params, *later]] == [False, False, True, False, False, False, True]


def test_work_follows_the_blocks_that_a_matrix_is_cut_into():
    group = {"modes": "all", "block": 4}
    soap, muon = (kind([{"params": [nn.Parameter(torch.zeros(2, 2))]}]) for kind in (SOAP, Muon))
    assert soap._work((8, 4, 3, 3), group) == 288 * (1 + 4 + 4 + 9 // 3)  # nine pixels as three blocks of three
    assert muon._work((8, 4, 3, 3), group) == 288 * 18


@BOTH
def test_a_process_alone_shares_with_nobody(kind):
    model, optimizer = made(kind, share=True)
    step(model, optimizer, range(SAVED))
    optimizer.consolidate_state_dict()
    plain, theirs = made(kind)
    step(plain, theirs, range(SAVED))
    assert not hasattr(theirs, "consolidate_state_dict")
    check_equal(content(model, optimizer), content(plain, theirs))
