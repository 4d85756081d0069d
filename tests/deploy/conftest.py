import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.sealed_files import MANIFEST, every_operation
from fixtures.trained_networks import classifier
from torch import nn

from bnnlight.deploy.formats.packed import save_packed
from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.program import operations
from bnnlight.nn import named_binary_layers


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def randomized():
    """Give a network numbers such as training leaves behind, and harder ones; return it in eval mode."""

    def give(model):
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.running_mean.normal_()
                    module.running_var.uniform_(0.2, 3)
                    if module.affine:
                        module.weight.normal_()
                        # some constant, some nearly so
                        module.weight[::5] = 0
                        module.weight[1::5] = 1e-30
                        module.bias.normal_()
                if isinstance(module, nn.PReLU):
                    module.weight.uniform_(0, 1)
                if isinstance(getattr(module, "bias", None), nn.Parameter):
                    module.bias.normal_()
            for _, layer in named_binary_layers(model):
                for parameter in layer.scale.parameters():
                    parameter.normal_()
        return model.eval()

    return give


def seen_signs(model, x):
    """The network's output, and for each binary layer's call what its sign sees as positive."""
    seen = {}

    def look(path):
        def hook(module, inputs, named):
            calls = sum(name.partition("@")[0] == f"{path}.sign" for name in seen)
            x = inputs[0] if inputs else named["x"]
            threshold = module.threshold().view(1, -1, *[1] * (x.ndim - 2))
            seen[f"{path}.sign" + (f"@{calls + 1}" if calls else "")] = (x >= threshold).numpy()

        return hook

    hooks = [
        layer.register_forward_pre_hook(look(path), with_kwargs=True) for path, layer in named_binary_layers(model)
    ]
    with torch.no_grad():
        y = model(x).numpy()
    for hook in hooks:
        hook.remove()
    return y, seen


@pytest.fixture
def check_frozen():
    """Check that a program computes what a network does: every sign, and the output to rounding."""

    def check(model, program, x):
        expected, signs = seen_signs(model, x)
        shown = {}
        with torch.no_grad():
            y = FrozenNetwork(program)(x, lambda name, value: shown.__setitem__(name, value.numpy() > 0)).numpy()
        assert signs
        assert {name: int((shown[name] != s).sum()) for name, s in signs.items()} == dict.fromkeys(signs, 0)
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=2e-6 * max(1.0, float(np.abs(expected).max())))

    return check


@pytest.fixture
def packed(tmp_path):
    """A file of a few kB and its program."""
    network, manifest = classifier()
    program = freeze(network, (3, 16, 16))
    return save_packed(program, manifest, tmp_path), program


@pytest.fixture(scope="module")
def images():
    """Three of 16×16 pixels."""
    return np.random.default_rng(1).normal(size=(3, 3, 16, 16)).astype(np.float32)


@pytest.fixture
def sealed_file(tmp_path):
    """A sound file in which each operation stands."""
    return save_packed(every_operation(), MANIFEST, tmp_path)


@pytest.fixture
def bounded(monkeypatch):
    """Lets a test have 256 MiB of memory more than now and 20 s for each round, and programs some 1 M numbers.

    With the bounds of programs lowered, memory that a hole in them lets a file take runs into the process's own bound,
    and torch or Python raises an error that no test expects.
    """
    for name, bound in (("MAX_VALUES", 2**20), ("MAX_UNFOLDED", 2**22), ("MAX_WORK", 2**27)):
        monkeypatch.setattr(operations, name, bound)
    # what is loaded late and once is loaded before the bound stands
    FrozenNetwork(every_operation())(torch.zeros(1, 3, 8, 8))

    def too_long(*_):
        raise TimeoutError("this file took 20 s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 2**28, hard))
    old = signal.signal(signal.SIGALRM, too_long)
    yield lambda: signal.alarm(20)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
