"""Shares of steps that ε shortens, counted by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from bnnlight.callbacks import Damping
from bnnlight.callbacks.damping import _roots
from bnnlight.optim import SOAP

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")

GRADIENTS = torch.tensor([[1e-9, 2e-9, 3e-9], [1e-4, 1e-5, 0.0]])


def groups():
    named = {"latent/a": nn.Parameter(torch.zeros(2, 3)), "norm": nn.Parameter(torch.zeros(3))}
    named["latent/a"].grad, named["norm"].grad = GRADIENTS.clone(), torch.full((3,), 1e-12)
    return [{"name": name, "params": [p]} for name, p in named.items()]


@pytest.fixture
def validated(fit, network):
    """Figures of a validation behind each of two steps of an optimizer with these gradients."""

    class Told(network):
        def configure_optimizers(self):
            return make(groups())

        def on_before_optimizer_step(self, optimizer):
            optimizer.param_groups[0]["params"][0].grad = GRADIENTS.clone()

        def validation_step(self, batch, batch_idx):
            self.log("val/acc1", 0.5)

    make = None

    def run(optimizer):
        nonlocal make
        make = optimizer
        _, logged, _ = fit(Damping(), network=Told(), val_data=DataLoader([0]), max_steps=2, val_check_interval=1)
        return [values.get("bnn/damped") for values in logged.values() if "val/acc1" in values]

    return run


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_roots_are_the_gradients_of_a_first_step(kind):
    optimizer = kind(groups(), eps=1e-8)
    optimizer.step()
    ((root, eps),) = _roots(optimizer)
    torch.testing.assert_close(root, GRADIENTS, rtol=1e-4, atol=1e-13)
    assert eps == 1e-8


def test_rmsprop_has_no_correction():
    optimizer = torch.optim.RMSprop(groups(), alpha=0.75, eps=1e-7)
    optimizer.step()
    ((root, eps),) = _roots(optimizer)
    torch.testing.assert_close(root, GRADIENTS / 2)
    assert eps == 1e-7


def test_soap_is_looked_at_in_its_bases():
    made = groups()
    optimizer = SOAP(made, eps=1e-7, betas=(0.9, 0.9))
    for _ in range(2):
        optimizer.step()
    ((root, eps),) = _roots(optimizer)
    # of a gradient in the eigenbases of both sides all is in the singular values
    singular = torch.linalg.svdvals(GRADIENTS.double()).float()
    found = root.flatten().sort(descending=True).values[:2]
    assert eps == 1e-7 and found[0] == pytest.approx(singular[0].item() * (0.1 / 0.19) ** 0.5, rel=1e-3)


def test_a_share_is_logged_and_a_line_says_what_to_do(validated, capsys):
    assert validated(lambda made: torch.optim.AdamW(made, lr=0.0)) == pytest.approx([3 / 5, 3 / 5])
    err = capsys.readouterr().err
    assert err.count("optimizer: its eps of 1e-08 makes 60 % of the binary weights' steps") == 1
    assert err.count("with --model.optimizer.eps=1e-15 they have") == 1


def test_a_small_epsilon_shortens_none(validated, capsys):
    assert validated(lambda made: torch.optim.AdamW(made, eps=1e-15)) == [0, 0]
    assert "eps" not in capsys.readouterr().err


def test_optimizers_without_it_log_nothing(validated):
    assert validated(lambda made: torch.optim.SGD(made, lr=0.1)) == [None, None]


@pytest.mark.parametrize("is_first", [True, False])
def test_of_several_processes_the_first_alone_logs_and_tells(is_first, capsys):
    """Another one may have no latents of its own, and a mean over processes would wait for it."""
    optimizer = torch.optim.AdamW(groups())
    optimizer.step()
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn="fit"), sanity_checking=False, is_global_zero=is_first, optimizers=[optimizer]
    )
    logged = []
    task = SimpleNamespace(log=lambda name, value, **options: logged.append((name, options)))
    Damping().on_validation_epoch_end(trainer, task)
    assert logged == ([("bnn/damped", {"rank_zero_only": True})] if is_first else [])
    assert ("eps" in capsys.readouterr().err) == is_first
