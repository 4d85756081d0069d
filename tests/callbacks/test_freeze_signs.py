"""Frozen signs: what is stepped and what not, under every kind of optimizer, and when."""

import lightning
import pytest
import torch
from fixtures.small_network import Network, loader

from bnnlight.callbacks import FreezeSigns, LayerByLayer, Stages
from bnnlight.nn import Dense, Tucker, named_binary_layers
from bnnlight.optim import SOAP, Muon, parameter_groups

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


def groups(network):
    return [{"params": list(g.parameters), "name": g.name} for g in parameter_groups(network)]


OPTIMIZERS = {
    # all that could move a weight without a gradient
    "sgd": lambda n: torch.optim.SGD(groups(n), lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda n: torch.optim.AdamW(groups(n), lr=0.05, weight_decay=0.1),
    "soap": lambda n: SOAP(groups(n), lr=0.05),
    "muon": lambda n: Muon(groups(n), lr=0.05),
}


def trained(kind, latent=Dense):
    class Trained(Network):
        def configure_optimizers(self):
            return OPTIMIZERS[kind](self)

    return Trained(latent)


class Parameters(lightning.Callback):
    """A copy of every parameter before each step, and after the last."""

    def __init__(self):
        self.at = {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.at[trainer.global_step] = {name: p.detach().clone() for name, p in pl_module.named_parameters()}


@pytest.mark.parametrize("latent", [Dense, Tucker])
@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_latents_stay_and_all_else_goes_on(fit, kind, latent):
    seen = Parameters()
    _, logged, _ = fit(FreezeSigns(share=0.5), seen, network=trained(kind, latent), max_steps=8, limit_train_batches=2)
    for step in range(2, 9):
        before, after = seen.at[step - 1], seen.at[step]
        stays = {name for name in before if torch.equal(before[name], after[name])}
        # the fifth step is the first that is not taken
        assert stays == ({name for name in before if ".latent." in name} if step > 4 else set()), step
    assert {step: row["bnn/signs_frozen"] for step, row in logged.items()} == {0: 0, 2: 0, 4: 1, 6: 1}


def test_an_epoch_counts_from_zero_and_moments_wait(fit):
    seen = Parameters()
    trainer, *_ = fit(FreezeSigns(epoch=2), seen, network=trained("adamw"), max_steps=6, limit_train_batches=2)
    (name,) = [name for name in seen.at[1] if name.startswith("body.0.latent")]
    moves = [not torch.equal(seen.at[step][name], seen.at[step + 1][name]) for step in range(1, 6)]
    assert moves == [True, True, True, False, False]
    state = trainer.optimizers[0].state
    layers = [layer for _, layer in named_binary_layers(trainer.lightning_module)]
    assert {int(state[layer.latent.weight]["step"]) for layer in layers} == {4}
    assert {int(state[layer.scale.alpha]["step"]) for layer in layers} == {6}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "either epoch or share"),
        ({"epoch": 1, "share": 0.5}, "either epoch or share"),
        ({"epoch": -1}, "epoch is -1"),
        ({"share": 1.0}, "share is 1.0"),
    ],
)
def test_options_out_of_range_are_one_line(options, text, check_one_line):
    with pytest.raises(ValueError) as caught:
        FreezeSigns(**options)
    check_one_line(caught, "FreezeSigns", text, "give")


def start(*callbacks, epochs=10, steps=-1):
    """Two steps an epoch."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        max_steps=steps,
        limit_train_batches=2,
        callbacks=list(callbacks),
        **dict.fromkeys(quiet, False),
    )
    trainer.fit(Network(), loader(2))
    return trainer


@pytest.mark.parametrize(
    ("options", "other", "parts"),
    [
        ({"epoch": 3}, Stages(2, 2), ("FreezeSigns (epoch 3)", "Stages", "epoch 4")),
        ({"share": 0.39}, Stages(2, 2), ("FreezeSigns (share 0.39)", "Stages", "epoch 4")),
        ({"share": 0.5}, LayerByLayer(0, 0.6), ("FreezeSigns (share 0.5)", "LayerByLayer", "0.6 of the run")),
        ({"epoch": 5}, LayerByLayer(0, 0.6), ("FreezeSigns (epoch 5)", "LayerByLayer", "0.6 of the run")),
    ],
)
def test_signs_that_are_not_there_yet_cannot_be_frozen(options, other, parts, check_one_line):
    with pytest.raises(ValueError) as caught:
        start(FreezeSigns(**options), other)
    check_one_line(caught, *parts)
    later = {"epoch": 6} if "epoch" in options else {"share": 0.6}
    start(FreezeSigns(**later), other)


def test_a_share_is_one_of_the_steps_that_are_really_taken(check_one_line):
    # five of ten epochs, with the weights binary from the fifth
    with pytest.raises(ValueError) as caught:
        start(FreezeSigns(share=0.5), Stages(2, 2), steps=10)
    check_one_line(caught, "FreezeSigns (share 0.5)", "Stages", "epoch 4")
    start(FreezeSigns(share=0.85), Stages(2, 2), steps=10)


def test_a_freeze_behind_the_end_is_told_of():
    with pytest.warns(UserWarning, match=r"FreezeSigns \(epoch 3\): the run ends before"):
        start(FreezeSigns(epoch=3), epochs=2)


def test_signs_stay_frozen_in_a_run_that_goes_on_for_longer():
    frozen, other = FreezeSigns(share=0.5), FreezeSigns(share=0.5)
    trainer = start(frozen, epochs=2)
    trainer.fit_loop.max_epochs = 20
    other.load_state_dict(frozen.state_dict())
    assert other.is_due(trainer) and not FreezeSigns(share=0.9).is_due(trainer)


def test_a_share_of_no_end_is_one_line(check_one_line):
    with pytest.raises(ValueError) as caught:
        start(FreezeSigns(share=0.5), epochs=-1)
    check_one_line(caught, "a run that has no end", "trainer.max_epochs")
