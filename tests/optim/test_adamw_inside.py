"""What SOAP and Muon share: who is stepped by AdamW, in what memory, and what is kept from step to step."""

import copy
import gc

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from bnnlight.optim import SOAP, Muon, adamw_inside
from bnnlight.optim.stack import Stack

BOTH = pytest.mark.parametrize("kind", [SOAP, Muon])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def latents(params):
    return [{"params": params, "name": "latent"}]


def squares(number, size=6):
    return [nn.Parameter(torch.randn(size, size)) for _ in range(number)]


@pytest.mark.parametrize("odd", ["gradient", "state"])
def test_adamw_steps_tensors_of_several_layouts_as_those_of_one(odd):
    """A gradient that was assigned, or a state from a checkpoint of another layout than the network has now."""
    ours, theirs = (nn.Parameter(torch.ones(4, 3, 5, 5)) for _ in range(2))
    optimizer = Muon([{"params": [ours], "name": "weight"}], lr=0.1, weight_decay=0.0)
    adam = torch.optim.Adam([theirs], lr=0.1)
    for step in range(4):
        gradient = torch.randn(4, 3, 5, 5)
        theirs.grad = gradient.clone()
        ours.grad = gradient.to(memory_format=torch.channels_last) if odd == "gradient" else gradient
        if odd == "state" and step:
            state = optimizer.state[ours]
            state["exp_avg"] = state["exp_avg"].to(memory_format=torch.channels_last)
        optimizer.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


@BOTH
def test_a_step_under_autocast_is_the_same(kind):
    ours = [nn.Parameter(torch.randn(8, 6, 3, 3)), nn.Parameter(torch.randn(5))]
    theirs = copy.deepcopy(ours)
    one, two = kind(latents(ours)), kind(latents(theirs))
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        with torch.autocast("cpu", torch.bfloat16):
            one.step()
        two.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


@BOTH
def test_memory_does_not_grow_where_other_parameters_have_a_gradient_in_each_step(kind):
    params = squares(5)
    alone = copy.deepcopy(params)
    optimizer, each = kind(latents(params)), [kind(latents([p])) for p in alone]
    for step in range(40):
        for index, (p, q) in enumerate(zip(params, alone, strict=True)):
            p.grad = torch.randn(6, 6) if (step * step + step * index) % 3 else None
            q.grad = None if p.grad is None else p.grad.clone()
        optimizer.step()
        for other in each:
            other.step()
        tensors = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
        storages = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in tensors}
        assert sum(storages.values()) == sum(v.nbytes for v in tensors)
    gc.collect()
    stacks = [found for found in gc.get_objects() if type(found) is Stack]
    assert sum(any(p is stack.params[0] for p in params) for stack in stacks) <= len(params)
    if kind is Muon:  # whose steps do not depend on who else is there
        for p, q in zip(params, alone, strict=True):
            torch.testing.assert_close(p, q)


def test_who_is_a_matrix_by_the_names_of_groups():
    names = ("weight", "weight/added1", "norm", "alpha", "latent", "latent/0/core", "head")
    groups = [{"params": [nn.Parameter(torch.ones(3, 4))], "name": name} for name in names]
    for layers, expected in (("binary", names[4:]), ("real", names[:2]), ("all", names[:2] + names[4:])):
        optimizer = Muon([{**group} for group in groups], layers=layers)
        for group in groups:
            group["params"][0].grad = torch.ones(3, 4)
        optimizer.step()
        found = [g["name"] for g in groups if "momentum_buffer" in optimizer.state[g["params"][0]]]
        assert found == list(expected)


def test_a_step_count_that_a_checkpoint_left_elsewhere_follows_its_parameter(monkeypatch):
    """As Lightning leaves it on the CPU, where the fused kernel of a GPU cannot read it; meta plays the GPU."""
    monkeypatch.setattr(adamw_inside, "_FUSED", ("meta",))
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    p = nn.Parameter(torch.zeros(3, device="meta"))
    optimizer = Muon([{"params": [p], "name": "norm"}])
    p.grad = torch.zeros_like(p)
    optimizer.state[p] = {"step": torch.tensor(2.0), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
    optimizer.step()
    assert optimizer.state[p]["step"].device == p.device


@BOTH
def test_a_sparse_gradient_is_refused(kind, check_one_line):
    embedding = nn.Embedding(5, 4, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError) as error:
        kind(latents(list(embedding.parameters()))).step()
    check_one_line(error, "5×4", "sparse=False")


@BOTH
def test_sharded_matrices_are_refused(kind, tmp_path, check_one_line):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        layer = fully_shard(nn.Linear(4, 3))
        with pytest.raises(ValueError, match="fully_shard has divided them among processes: take") as caught:
            kind([{"params": layer.parameters(), "name": "latent"}])
        check_one_line(caught)
        kind([{"params": [layer.bias], "name": "norm"}])
    finally:
        dist.destroy_process_group()


@BOTH
def test_a_state_without_groups_is_refused(kind):
    with pytest.raises(ValueError, match="different number of parameter groups"):
        kind(latents(squares(1))).load_state_dict({"state": {}, "param_groups": []})
