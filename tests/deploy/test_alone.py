"""One picture goes through a trace of the network: the same numbers, and no Python between its steps."""

import warnings

import numpy as np
import pytest
import torch
from fixtures.sealed_files import every_operation

from bnnlight.deploy.alone import for_one_picture
from bnnlight.deploy.packed import InTorch
from bnnlight.deploy.plain import FrozenNetwork


@pytest.fixture
def network():
    return FrozenNetwork(every_operation()).eval()


def test_every_operation_gives_the_same_bits(network):
    alone = for_one_picture(network)
    for seed in range(5):
        picture = torch.randn(1, *network.program.input_shape, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(alone(picture), network(picture))


def test_nothing_of_python_is_left_in_it(network):
    alone = for_one_picture(network)
    assert isinstance(alone, torch.jit.ScriptModule)
    assert "PythonOp" not in str(alone.graph)


@pytest.mark.filterwarnings("error")
def test_it_is_made_without_a_word_and_leaves_the_filters_as_they_were(network):
    before = list(warnings.filters)
    for_one_picture(network)
    assert warnings.filters == before


@pytest.mark.parametrize("how", ["gone", "fails"])
def test_where_torch_cannot_trace_the_network_runs_as_it_is(network, how, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no tracing here")

    if how == "gone":
        monkeypatch.delattr(torch.jit, "trace")
    else:
        monkeypatch.setattr(torch.jit, "trace", fail)
    assert for_one_picture(network) is network


def test_one_picture_takes_the_trace_and_several_do_not(monkeypatch):
    program, calls = every_operation(), []
    monkeypatch.setattr(
        "bnnlight.deploy.alone.for_one_picture", lambda network: lambda x: calls.append(len(x)) or network(x)
    )
    run = InTorch(program, num_threads=1)
    for count in (1, 3, 0):
        run(np.zeros((count, *program.input_shape), np.float32))
    assert calls == [1]
