"""Layer by layer: which entries when, what is logged, kept as best, resumed, and refused."""

import os
import sys
from pathlib import Path

import lightning
import pytest
import torch
from fixtures.free_port import free_port
from fixtures.processes import run_to_end
from fixtures.small_network import Network, loader
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from bnnlight.callbacks import LayerByLayer, Stages
from bnnlight.nn import named_binary_layers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


class Seen(lightning.Callback):
    """The share of signs in each layer as a batch's loss goes backward, and its first layers' masks."""

    def __init__(self):
        self.shares, self.masks = {}, {}

    def on_before_backward(self, trainer, pl_module, loss):
        stages = [layer.stage for _, layer in named_binary_layers(pl_module)]
        self.shares[trainer.global_step] = [1.0 if stage == "binary" else stage.share for stage in stages]
        shape, device = (6, 2, 3, 3), torch.device("cpu")
        self.masks[trainer.global_step] = [s.mask(shape, device).clone() if s != "binary" else None for s in stages]


def test_layers_become_binary_one_after_the_other(fit):
    seen = Seen()
    # four layers from the second of ten steps to the eighth: one and a half steps each
    trainer, logged, _ = fit(LayerByLayer(start=0.2, end=0.8, interval=1), seen, max_steps=10)
    for step, shares in seen.shares.items():
        way = (step - 2) / 1.5
        assert shares == pytest.approx([min(1, max(0, way - layer)) for layer in range(4)])
        assert logged[step]["bnn/binary_share"] == pytest.approx(sum(shares) / 4)
    assert seen.shares[2] == [0, 0, 0, 0] and seen.shares[8] == [1, 1, 1, 1]
    assert 0 < seen.shares[4][1] < 1 == seen.shares[4][0]
    assert logged[0]["bnn/stage"] == 0 and logged[10]["bnn/binary_share"] == 1
    assert all(layer.stage == "binary" for _, layer in named_binary_layers(trainer.lightning_module))


def test_masks_grow_alone_or_are_renewed_meanwhile(fit):
    kept, renewed = Seen(), Seen()
    fit(LayerByLayer(0.0, 0.99, refresh=0.0), kept, max_steps=16)
    fit(LayerByLayer(0.0, 0.99, refresh=0.4), renewed, max_steps=16)
    # in the fourth step there is more of a fourth, and as much of what was there is let go
    for seen, goes in ((kept, False), (renewed, True)):
        assert 0 < seen.masks[2][0].sum() < seen.masks[3][0].sum() < seen.masks[3][0].numel()
        assert bool((seen.masks[2][0] & ~seen.masks[3][0]).any()) == goes


def test_without_straight_through_gradients_the_last_signs_get_none(fit):
    grads = Grads()
    fit(LayerByLayer(0.0, 0.5, straight_through=False), grads, max_steps=8)
    for name, grad in grads.at[7].items():
        # zeros rather than nothing, for all but the scale of the last layer
        assert bool((grad == 0).all()) == (name != "head.scale.alpha"), name
    assert any(bool((grad != 0).any()) for name, grad in grads.at[1].items() if name.startswith("body.2.latent"))


class Grads(lightning.Callback):
    def __init__(self):
        self.at = {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.named_parameters()
        self.at[trainer.global_step] = {name: None if p.grad is None else p.grad.clone() for name, p in named}


class Scored(Network):
    def validation_step(self, batch, batch_idx):
        binary = all(layer.stage == "binary" for _, layer in named_binary_layers(self))
        self.log("val/acc1", (0.4 if binary else 0.9) + 0.01 * self.trainer.current_epoch)


def test_the_best_is_of_the_binary_network_and_nothing_stops_before(tmp_path, fit):
    best = ModelCheckpoint(tmp_path, monitor="val/acc1", mode="max", save_on_train_epoch_end=False)
    stopping = EarlyStopping("val/acc1", mode="max", patience=1, min_delta=0.5)
    fitted = lightning.Trainer(
        **{"max_epochs": 8, "accelerator": "cpu", "logger": False, "enable_progress_bar": False},
        **{"enable_model_summary": False, "callbacks": [LayerByLayer(0.0, 0.6), best, stopping]},
    )
    fitted.fit(Scored(), loader(3), loader(1))
    # binary after 0.6 · 24 = 14.4 steps, so from the validation of epoch 4, after 15, on
    assert float(best.best_model_score) == pytest.approx(0.4 + 0.01 * (fitted.current_epoch - 1))
    assert fitted.current_epoch == 6
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_run_that_goes_on_is_the_run_that_was_never_stopped(fit, tmp_path, step):
    class Break(lightning.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == step:
                trainer.save_checkpoint(tmp_path / "last.ckpt")
                raise InterruptedError

    whole, broken, resumed = Network(), Network(), Network()
    for network in (broken, resumed):
        network.load_state_dict(whole.state_dict())
    seen, later = Seen(), Seen()
    fit(LayerByLayer(0.0, 0.9), seen, network=whole, max_steps=8)
    with pytest.raises(InterruptedError):
        fit(LayerByLayer(0.0, 0.9), Break(), network=broken, max_steps=8)
    fit(LayerByLayer(0.0, 0.9), later, network=resumed, max_steps=8, ckpt_path=tmp_path / "last.ckpt")
    for at, masks in later.masks.items():
        for one, other in zip(masks, seen.masks[at], strict=True):
            assert one is other is None or torch.equal(one, other)
    assert later.shares == {at: shares for at, shares in seen.shares.items() if at >= step}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"start": 0.5, "end": 0.5}, "start is 0.5 and end 0.5"),
        ({"end": 1.0}, "end 1.0"),
        ({"start": -0.1}, "start is -0.1"),
        ({"refresh": 1.0}, "refresh is 1.0"),
        ({"interval": 0}, "interval is 0"),
    ],
)
def test_numbers_out_of_range_are_one_line(options, text, check_one_line):
    with pytest.raises(ValueError) as caught:
        LayerByLayer(**options)
    check_one_line(caught, text, "give")


def test_what_excludes_each_other_is_one_line(fit, check_one_line):
    with pytest.raises(ValueError) as caught:
        fit(LayerByLayer(), Stages(1, 1), max_steps=4)
    check_one_line(caught, "Stages and LayerByLayer", "leave one of them out")
    network = Network()
    network.body, network.head = torch.nn.Flatten(), torch.nn.Linear(32, 3)
    with pytest.raises(ValueError) as caught:
        fit(LayerByLayer(), network=network, max_steps=4)
    check_one_line(caught, "has no binary layers")
    with pytest.raises(ValueError) as caught:
        fit(LayerByLayer())
    check_one_line(caught, "no end to plan the masks for", "trainer.max_epochs")


def test_a_run_that_ends_before_all_is_binary_is_told_of(fit):
    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step == 2

    with pytest.warns(UserWarning, match="before its last layer was binary"):
        fit(LayerByLayer(), Stop(), max_steps=8)


@pytest.mark.slow
def test_two_processes_have_the_same_masks_and_weights(tmp_path):
    script = Path(__file__).with_name("two_ranks_layer_by_layer.py")
    env = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "MASTER_PORT": str(free_port())}
    # the run's seed, as seed_everything leaves it for all processes, is what pictures are mixed by
    env |= {"PL_GLOBAL_SEED": "7"}
    done = run_to_end([sys.executable, script, tmp_path], os.environ | env)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert sorted(one) == sorted(other) == list(range(9))
    for step, row in one.items():
        for name, value in row["weights"].items():
            assert torch.equal(value, other[step]["weights"][name]), (step, name)
        for mine, theirs in zip(row.get("masks", ()), other[step].get("masks", ()), strict=True):
            assert torch.equal(mine, theirs)
        assert step == 8 or torch.equal(row["mixed"], other[step]["mixed"])
    latents = [name for name in one[0]["weights"] if ".latent." in name]
    assert all(not torch.equal(one[0]["weights"][name], one[2]["weights"][name]) for name in latents[1:])
    assert all(torch.equal(one[6]["weights"][name], one[8]["weights"][name]) for name in latents)
    assert not torch.equal(one[6]["weights"]["layers.3.weight"], one[8]["weights"]["layers.3.weight"])


def test_a_binary_network_stays_so_in_a_run_that_goes_on_for_longer(fit):
    first, second, seen = LayerByLayer(end=0.5), LayerByLayer(end=0.5), Seen()
    fit(first, max_steps=4)
    second.load_state_dict(first.state_dict())
    fit(second, seen, max_steps=40)
    assert {share for shares in seen.shares.values() for share in shares} == {1.0}
