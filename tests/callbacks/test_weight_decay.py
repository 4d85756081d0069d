"""Weight decay of latents, against SGD by hand, and until when it acts."""

import lightning
import pytest
import torch
from fixtures.small_network import Network
from torch import nn

from bnnlight.callbacks import LayerByLayer, Stages, WeightDecay
from bnnlight.optim import Bop
from bnnlight.tasks.optimization import make_optimizer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


class Decayed(Network):
    """With a real layer, and the optimizer of a task."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(24, 3)

    def configure_optimizers(self):
        return make_optimizer(self, lambda g: torch.optim.SGD(g, lr=0.1, weight_decay=0.01), alpha_lr=0.5)


class Steps(lightning.Callback):
    """What the gradients do not explain of each step: (parameter, change + rate · gradient) by step and name."""

    def __init__(self):
        self.rows, self.before = {}, {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.before = {n: (p.detach().clone(), p.grad.clone()) for n, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, *args):
        for name, p in pl_module.named_parameters():
            old, gradient = self.before[name]
            rate = 0.05 if name.endswith("alpha") else 0.1
            self.rows[trainer.global_step, name] = old.double(), (p.detach() - old + rate * gradient).double()


@pytest.mark.parametrize("real", [None, 0.3])
def test_latents_and_real_weights_decay_as_asked_and_nothing_else_does(fit, real):
    seen = Steps()
    fit(seen, WeightDecay(0.2, real), network=Decayed(), max_steps=3)
    for (_, name), (old, rest) in seen.rows.items():
        decay = 0.2 if ".latent." in name else (real or 0.01) if name == "head.weight" else 0.0
        torch.testing.assert_close(rest, -0.1 * decay * old, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("other", [Stages(0, 2), LayerByLayer(0.0, 0.49), LayerByLayer(0.0, 0.49, 0.0, False)])
def test_it_ends_once_the_weights_are_binary(fit, other):
    seen = Steps()
    # before the other callback, which changes the stage later
    decay = WeightDecay(0.2, 0.3, until_binary=True)
    trainer = lightning.Trainer(
        **{"accelerator": "cpu", "max_epochs": 4, "logger": False, "enable_checkpointing": False},
        **{"enable_progress_bar": False, "enable_model_summary": False, "limit_train_batches": 2},
        callbacks=[decay, other, seen],
    )
    from fixtures.small_network import loader

    trainer.fit(Decayed(), loader())
    for (step, name), (old, rest) in seen.rows.items():
        if ".latent." in name or name == "head.weight":
            rate = 0.0 if step > 4 else 0.02 if ".latent." in name else 0.03
            torch.testing.assert_close(rest, -rate * old, rtol=1e-3, atol=1e-7)
    assert {group["weight_decay"] for group in trainer.optimizers[0].param_groups} == {0.0}


@pytest.mark.parametrize("options", [{"latent": -1.0}, {"latent": 0.1, "real": float("nan")}])
def test_numbers_out_of_range_are_one_line(options, check_one_line):
    with pytest.raises(ValueError) as caught:
        WeightDecay(**options)
    (name, value) = list(options.items())[-1]
    check_one_line(caught, f"{name} is {value}", "at least 0")


def test_what_cannot_be_is_one_line(fit, check_one_line):
    with pytest.raises(ValueError) as caught:
        fit(WeightDecay(0.1, until_binary=True), max_steps=2)
    check_one_line(caught, "until_binary", "add Stages or LayerByLayer")

    class Flipped(Network):
        def configure_optimizers(self):
            return make_optimizer(self, lambda g: Bop(g, lr=0.1))

    # its latents have no decay to be set; and an optimizer without groups has no latents
    for network in (Flipped(), Network()):
        with pytest.raises(ValueError) as caught:
            fit(WeightDecay(0.1), network=network, max_steps=2)
        name = "Bop" if isinstance(network, Flipped) else "Adam"
        check_one_line(caught, name, "no weight decay for latents")
