"""Compiled against uncompiled, in double precision. Most is traced only (``aot_eager``), not made into machine code."""

import shutil
from functools import partial
from types import SimpleNamespace

import lightning
import pytest
import torch
from fixtures.small_network import Network, loader
from torch import nn

from bnnlight.callbacks import Activations, Compile, CompileOptions, LayerByLayer, Loosen, Sharpen
from bnnlight.nn import Clamped, named_binary_layers
from bnnlight.optim import SOAP, Muon
from bnnlight.tasks import ClassificationTask

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*", "ignore::DeprecationWarning")

NEEDS_COMPILER = pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs g++, which is not here")


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def task(optimizer=torch.optim.SGD, lr=0.05, **options):
    torch.manual_seed(4)
    network = Network()
    return ClassificationTask(nn.Sequential(*network.body, network.head), lambda g: optimizer(g, lr=lr), **options)


def weights(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def train(fit, *callbacks, network=None, **options):
    """All weights, and what was logged, after nine steps over batches of two sizes, with validation."""
    data = torch.utils.data.DataLoader(loader(3).dataset, batch_size=5)  # the last one has two pictures
    made = network or task()
    trainer, logged, _ = fit(
        *callbacks, network=made, data=data, val_data=data, precision="64-true", max_steps=9, **options
    )
    return weights(trainer.lightning_module), logged


def compiled(**options):
    return Compile(CompileOptions(**{"backend": "aot_eager"} | options))


def test_a_compiled_network_is_trained_to_the_same_weights(fit):
    plain, figures = train(fit)
    found, again = train(fit, compiled())
    assert not torch.equal(plain, weights(task().double()))
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-12)
    assert again.keys() == figures.keys()
    for step, values in figures.items():
        assert again[step] == pytest.approx(values, rel=1e-6)


def test_the_network_runs_compiled(fit):
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    torch._dynamo.register_backend(keep, name="kept_by_a_test")
    network = task()
    train(fit, compiled(backend="kept_by_a_test"), network=network)
    assert graphs
    assert [*network.state_dict()] == [*task().state_dict()]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.AdamW])
def test_a_compiled_step_is_the_same_step(fit, optimizer):
    plain, _ = train(fit, network=task(optimizer, 0.01))
    found, _ = train(fit, compiled(network=False, optimizer=True), network=task(optimizer, 0.01))
    # Adam's corrections are computed in float32 by torch where it compiles them
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5 if optimizer is torch.optim.AdamW else 1e-12)
    assert float((plain - weights(task().double())).abs().max()) > 1e-3


def test_a_schedule_does_not_compile_anew(fit):
    class Strict(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 4:  # two sizes of batches and two rates were seen
                torch.compiler.set_stance("fail_on_recompile")

    try:
        train(fit, compiled(optimizer=True), Strict())
    finally:
        torch.compiler.set_stance("default")


def test_what_looks_at_layers_sees_them(fit):
    _, plain = train(fit, Activations(2))
    found = train(fit, Activations(2), compiled())[1]
    looks = {step: {key: v for key, v in values.items() if key.startswith("bnn/")} for step, values in plain.items()}
    assert sum(map(bool, looks.values())) == 4
    for step, values in looks.items():
        assert {key: v for key, v in found[step].items() if key.startswith("bnn/")} == pytest.approx(values, abs=1e-12)


def test_a_quantile_that_moves_does_not_compile_anew(fit):
    def clamped():
        made = task()
        for _, layer in named_binary_layers(made):
            layer.weight_parts = nn.Sequential(Clamped(layer.weight.detach(), 0.85))
        return made

    class Strict(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 4:
                torch.compiler.set_stance("fail_on_recompile")

    plain, _ = train(fit, Loosen(interval=1), network=clamped())
    try:
        found, _ = train(fit, Loosen(interval=1), compiled(), Strict(), network=clamped())
    finally:
        torch.compiler.set_stance("default")
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-12)


@NEEDS_COMPILER
@pytest.mark.slow
def test_inductor_trains_the_same_weights(fit):
    plain, _ = train(fit)
    found, _ = train(fit, compiled(backend="inductor", mode="default", optimizer=True))
    torch.testing.assert_close(found, plain, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": False}, "neither network nor optimizer"),
        ({"mode": "fast", "backend": "inductor"}, "no mode 'fast': choose one of default, reduce-overhead"),
        ({"mode": "max-autotune"}, "compile.mode is for the backend inductor"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        compiled(**options)


class Headless(Network):
    """A task that has no ``backbone``."""


class Watched(nn.Module):
    """Stands for a teacher that compares feature maps."""

    matching = SimpleNamespace(weights={"attention": 1.0})


class Lean(nn.Sequential):
    lean = True


def with_teacher():
    made = task()
    made.teacher = Watched()
    return made


def lean():
    made = task()
    made.backbone = Lean(made.backbone)
    return made


@pytest.mark.parametrize(
    ("options", "make", "callbacks", "message"),
    [
        ({"backend": "nothing"}, task, [], "nothing, which torch does not know: it has inductor, aot_eager"),
        ({}, Headless, [], "Headless has no network named `backbone`"),
        ({}, task, [Sharpen()], "Sharpen changes the network at each step"),
        ({}, task, [LayerByLayer()], "LayerByLayer changes the network at each step"),
        ({}, with_teacher, [], "feature maps, which a compiled network does not show"),
        ({"backend": "eager"}, lean, [], "set compile.backend to aot_eager"),
        ({"optimizer": True}, lambda: task(SOAP), [], "SOAP is not one that can be compiled"),
        ({"optimizer": True}, lambda: task(Muon), [], "Muon is not one that can be compiled"),
        ({"optimizer": True}, lambda: task(partial(torch.optim.AdamW, fused=True)), [], "AdamW has fused: true"),
        ({"optimizer": True, "network": False}, Headless, [], "Adam is not one that can be compiled"),
    ],
)
def test_what_cannot_be_compiled(fit, options, make, callbacks, message):
    with pytest.raises(ValueError, match=message):
        fit(compiled(**options), *callbacks, network=make(), max_steps=2)


def test_a_network_alone_may_be_compiled_beside_sharpen(fit):
    fit(compiled(network=False, optimizer=True), Sharpen(), network=task(), max_steps=2)
