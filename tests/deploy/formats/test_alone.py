"""One picture goes through a trace of the network: the same numbers, and no Python between its steps."""

import gc
import warnings
import weakref

import numpy as np
import pytest
import torch
from fixtures.sealed_files import every_operation

from bnnlight.deploy.formats import alone
from bnnlight.deploy.formats.alone import for_one_picture
from bnnlight.deploy.formats.packed import InTorch
from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.program import Program, Step


@pytest.fixture
def traces(monkeypatch):
    """All traces from here on."""
    made, trace = [], torch.jit.trace
    monkeypatch.setattr(torch.jit, "trace", lambda *args, **kwargs: made.append(trace(*args, **kwargs)) or made[-1])
    monkeypatch.setattr(alone, "_traces", {})
    return made


@pytest.fixture
def network():
    return FrozenNetwork(every_operation()).eval()


def test_every_operation_gives_the_same_bits(network):
    run = for_one_picture(network)
    for seed in range(5):
        picture = torch.randn(1, *network.program.input_shape, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(run(picture), network(picture))


def test_of_networks_of_one_form_nothing_is_kept_but_one_trace_without_their_weights(traces):
    """Torch never frees a trace, and a service may open models for years."""
    kept = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        program = every_operation()
        for step in program.steps:
            for name, array in step.tensors.items():
                if name in ("weight", "bias", "shift"):
                    array[...] = rng.normal(size=array.shape)
        network = FrozenNetwork(program).eval()
        picture = torch.randn(1, *program.input_shape)
        assert torch.equal(for_one_picture(network)(picture), network(picture))
        kept.append(weakref.ref(network))
    del network
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3
    (traced,) = traces
    assert isinstance(traced, torch.jit.ScriptFunction)
    assert "PythonOp" not in str(traced.graph)
    other = Program((3, 9, 9), (Step("y", "relu", ("input",), {}, {}),))
    assert for_one_picture(FrozenNetwork(other))(-torch.ones(1, 3, 9, 9)).sum() == 0
    assert len(traces) == 2


@pytest.mark.filterwarnings("error")
def test_it_is_made_without_a_word_and_leaves_the_filters_as_they_were(network, traces):
    before = list(warnings.filters)
    for_one_picture(network)
    assert warnings.filters == before and len(traces) == 1


@pytest.mark.parametrize("how", ["gone", "fails"])
def test_where_torch_cannot_trace_the_network_runs_as_it_is(network, traces, how, monkeypatch):
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
        "bnnlight.deploy.formats.alone.for_one_picture", lambda network: lambda x: calls.append(len(x)) or network(x)
    )
    run = InTorch(program, num_threads=1)
    for count in (1, 3, 0):
        run(np.zeros((count, *program.input_shape), np.float32))
    assert calls == [1]
