"""Batch norm over two processes against torch's layer on both batches together."""

import copy
import itertools

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from bnnlight.nn.compute.sync_norm import SyncBatchNorm, desynchronize, synchronize

CASES = {
    "2d": (nn.BatchNorm2d(3), (5, 3, 4, 2), 3),
    "one process without items": (nn.BatchNorm2d(3), (5, 3, 4, 2), 5),
    "1d, cumulative average": (nn.BatchNorm1d(3, momentum=None, eps=1e-2), (7, 3), 2),
    "3d, bare": (nn.BatchNorm3d(3, affine=False, momentum=0.4), (4, 3, 2, 2, 3), 1),
    "no running statistics": (nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 2, 2), 1),
}
"""Plain layer, shape of both batches together, items of the first process."""
DTYPES = (torch.float32, torch.float64)
STEPS = 3


def layer_and_batches(case, dtype):
    plain, shape, split = CASES[case]
    torch.manual_seed(0)
    plain = copy.deepcopy(plain).to(dtype)
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    # far from zero: a variance as E[x²] − E[x]² would be lost in rounding
    batches = [torch.randn(shape, dtype=dtype) * (step + 1) + 100 for step in range(STEPS)]
    wanted = [torch.randn(shape, dtype=dtype) for _ in range(STEPS)]
    return plain, batches, wanted, split


def losses(layer, batches, wanted):
    """Trains the layer's statistics on batches; gives outputs, input gradients and summed weight gradients."""
    outputs, gradients = [], []
    for batch, target in zip(batches, wanted, strict=True):
        batch = batch.clone().requires_grad_()
        output = layer(batch)
        # not a function of the mean alone, whose gradient batch norm takes away
        (output * target + output.square() * target.square()).sum().backward()
        outputs.append(output.detach())
        gradients.append(batch.grad)
    return outputs, gradients, [parameter.grad for parameter in layer.parameters()]


def worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results = {}
    for case, dtype in itertools.product(CASES, DTYPES):
        plain, batches, wanted, split = layer_and_batches(case, dtype)
        mine = slice(0, split) if rank == 0 else slice(split, None)
        layer = synchronize(plain)
        outputs, gradients, weights = losses(layer, [b[mine] for b in batches], [w[mine] for w in wanted])
        measured = None
        if rank == 0 and plain.track_running_stats:
            # the other process does not take part: measuring must not wait for it
            measured = layer.eval()(batches[0])
        results[case, dtype] = outputs, gradients, weights, measured, dict(layer.state_dict())
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("norm")
    mp.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_layer_on_both_batches(two_processes, case, dtype):
    first, second = (rank[case, dtype] for rank in two_processes)
    # the reference always in double precision
    plain, batches, wanted, split = layer_and_batches(case, dtype)
    plain = plain.double()
    outputs, gradients, weights = losses(plain, [b.double() for b in batches], [w.double() for w in wanted])
    close = {"rtol": 1e-4, "atol": 3e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    for step in range(STEPS):
        for mine, reference in ((0, outputs), (1, gradients)):
            both = torch.cat((first[mine][step], second[mine][step]))
            assert both.dtype == dtype
            torch.testing.assert_close(both.double(), reference[step], **close)
            assert len(first[mine][step]) == split
    # each process has its own part of the weights' gradient, which DDP adds up
    for one, other, reference in zip(first[2], second[2], weights, strict=True):
        torch.testing.assert_close((one + other).double(), reference, **close)
    state = plain.state_dict()
    assert list(first[4]) == list(state)
    for name, value in state.items():
        torch.testing.assert_close(first[4][name].to(value.dtype), value, **close)
        # not nearly, but wholly the same on both
        assert torch.equal(first[4][name], second[4][name])
    if plain.track_running_stats:
        torch.testing.assert_close(first[3].double(), plain.eval()(batches[0].double()), **close)


@pytest.fixture
def alone(tmp_path):
    """A process group of this process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_half_precision_is_summed_in_single(alone):
    torch.manual_seed(0)
    x = (torch.randn(64, 2, 16, 16) + 3).bfloat16()
    y = SyncBatchNorm(nn.BatchNorm2d(2))(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), nn.BatchNorm2d(2)(x.float()), rtol=1e-2, atol=1e-2)
    norm = SyncBatchNorm(nn.BatchNorm2d(2, momentum=1.0))
    norm(x)
    torch.testing.assert_close(norm.running_mean, x.double().mean((0, 2, 3)).float(), rtol=1e-5, atol=1e-5)


def test_one_value_is_too_few_to_train_on(alone, check_one_line):
    with pytest.raises(ValueError, match="one value a channel") as error:
        SyncBatchNorm(nn.BatchNorm2d(2))(torch.zeros(1, 2, 1, 1))
    check_one_line(error, "(1, 2, 1, 1)")


def test_wrong_number_of_dimensions_is_refused_as_by_the_plain_layer():
    with pytest.raises(ValueError, match="expected 4D input"):
        SyncBatchNorm(nn.BatchNorm2d(2))(torch.zeros(3, 2))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)))


def test_a_network_keeps_its_names_and_gets_its_layers_back():
    plain = network()
    layers, names = list(plain.modules()), list(plain.state_dict())
    parameters = [id(parameter) for parameter in plain.parameters()]
    model = synchronize(plain)
    assert sum(isinstance(module, SyncBatchNorm) for module in model.modules()) == 2
    assert list(model.state_dict()) == names
    assert [id(parameter) for parameter in model.parameters()] == parameters
    # trained, moved and loaded while synchronized: all of it is the plain network's too
    model.double().eval()
    state = {name: value + 1 for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    model = desynchronize(model)
    assert list(model.modules()) == layers
    assert not model[1].training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model[1].running_mean.dtype == torch.float64


def test_outside_of_several_processes_it_is_the_plain_layer():
    x = torch.randn(3, 1, 6, 6)
    plain, model = network(), synchronize(network())
    assert torch.equal(plain(x), model(x))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())


def test_options_that_change_meanwhile_are_handed_back():
    plain = nn.BatchNorm2d(3)
    norm = synchronize(nn.Sequential(plain))[0]
    norm.track_running_stats, norm.momentum, norm.eps = False, 0.5, 0.25
    assert norm.plain() is plain
    assert (plain.track_running_stats, plain.momentum, plain.eps) == (False, 0.5, 0.25)
