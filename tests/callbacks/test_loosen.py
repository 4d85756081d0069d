import math

import pytest
import torch

from bnnlight.callbacks import Loosen
from bnnlight.nn import BinaryConv2d, Clamped, named_binary_layers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


@pytest.fixture
def clamped(network):
    """The small network with weights that are clamped."""

    def make():
        torch.manual_seed(1)
        model = network()
        model.body[1] = BinaryConv2d(6, 6, 3, padding=1, weight_parts=[Clamped])
        model.body[2] = BinaryConv2d(6, 6, 3, padding=1, weight_parts=[Clamped])
        return model

    return make


def expected(done, start=0.85, end=0.99):
    """τ = A e^done + B of the paper's code, with A and B so that it runs from start to end."""
    a = (end - start) / (math.e - 1)
    return a * math.exp(done) + start - a


def taus(copies):
    return {
        step: {part.tau for layer in layers.values() for part in layer.modules() if isinstance(part, Clamped)}
        for step, layers in copies.items()
    }


def test_tau_rises_step_by_step_and_is_logged(fit, clamped):
    trainer, logged, copies = fit(Loosen(interval=1), network=clamped(), max_steps=4)
    assert {step: values["bnn/tau"] for step, values in logged.items()} == {
        step: pytest.approx(expected(step / 4), rel=1e-12) for step in range(5)
    }
    # seen after each step: the value that the step was taken with
    found = taus(copies)
    for step in range(4):
        (tau,) = found[step + 1]
        assert tau == pytest.approx(expected(step / 4), rel=1e-12)
    assert len([*named_binary_layers(trainer.lightning_module)]) == 4


def test_what_it_changes_is_what_is_learned(fit, clamped):
    outcomes = []
    for callback in (Loosen(0.6, 0.6), Loosen(0.6, 1.0)):
        model = clamped()
        fit(callback, network=model, max_steps=4)
        outcomes.append(model.body[1].latent.weight.detach())
    assert not torch.equal(*outcomes)


@pytest.mark.parametrize(
    ("options", "part"),
    [({"start": 0.5}, "start of Loosen is 0.5"), ({"end": 1.1}, "end of Loosen is 1.1"), ({"interval": 0}, "interval")],
)
def test_wrong_options(options, part):
    with pytest.raises(ValueError, match=part):
        Loosen(**options)


def test_needs_weights_that_are_clamped_and_a_run_with_an_end(fit, clamped):
    with pytest.raises(ValueError, match=r"Loosen: no layer has weights that are clamped: add bnnlight.nn.Clamped"):
        fit(Loosen(), max_steps=1)
    with pytest.raises(ValueError, match=r"no end to plan τ for: set trainer\.max_epochs or"):
        fit(Loosen(), network=clamped(), max_steps=-1)
