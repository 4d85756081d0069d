"""Averaged weights are what is measured, kept, tested and shipped; the trained ones are what is trained on."""

import copy
import json

import lightning
import pytest
import torch
from fixtures.small_network import Network, loader
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn

from bnnlight.callbacks import Turn
from bnnlight.callbacks.averages import whole
from bnnlight.experiment.trained.network import load_trained
from bnnlight.nn import BinaryConv2d, BiRotated

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*", "ignore:.*lr_scheduler.*")
LIGHTNING = "lightning.pytorch.callbacks."


class Normed(Network):
    """With a batch norm, and the weights that each validation and test saw."""

    def __init__(self):
        super().__init__()
        self.body.insert(0, nn.BatchNorm2d(2))
        self.seen = []

    def validation_step(self, batch, batch_idx):
        self.seen.append(weights(self))
        self.log("val/acc1", float(self.trainer.current_epoch))
        super().validation_step(batch, batch_idx)

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)


class Trained(lightning.Callback):
    """Keeps the weights behind each step, and before each epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append(weights(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.steps.append(weights(pl_module))


def weights(model):
    return {name: p.detach().double().clone() for name, p in model.named_parameters()}


def close(one, other):
    return all(torch.allclose(one[name].double(), other[name].double(), rtol=0, atol=1e-6) for name in one)


@pytest.fixture
def train(tmp_path):
    def run(callback, max_epochs=3, **options):
        torch.manual_seed(0)
        model, trained = Normed(), Trained()
        best = ModelCheckpoint(
            tmp_path, filename="best", monitor="val/acc1", mode="max", save_on_train_epoch_end=False, **options
        )
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=max_epochs,
            callbacks=[trained, whole(callback), best],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(model, loader(4), loader(1))
        return trainer, model, trained, best

    return run


def moving(steps, decay):
    average = steps[0]
    for step in steps[1:]:
        average = {name: decay * average[name] + (1 - decay) * step[name] for name in step}
    return average


def test_a_moving_average_is_what_is_left_measured_and_kept(train):
    _, model, trained, best = train(EMAWeightAveraging(decay=0.7))
    expected = [moving(trained.steps[: 4 * (epoch + 1)], 0.7) for epoch in range(3)]
    assert all(close(seen, wanted) for seen, wanted in zip(model.seen, expected, strict=True))
    assert close(weights(model), expected[-1])
    saved = torch.load(best.best_model_path, weights_only=True)
    assert close(expected[-1], saved["state_dict"]) and close(trained.steps[-1], saved["current_model_state"])
    # not the 1 that the average of whole numbers stays at
    assert saved["state_dict"]["body.0.num_batches_tracked"] == model.body[0].num_batches_tracked == 12


def test_what_is_saved_when_all_is_done_has_both(train, tmp_path):
    trainer, _, trained, _ = train(EMAWeightAveraging(decay=0.7))
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert close(moving(trained.steps, 0.7), saved["state_dict"])
    assert close(trained.steps[-1], saved["current_model_state"])


@pytest.mark.parametrize("kind", [EMAWeightAveraging, WeightAveraging])
def test_what_follows_the_training_measures_the_averages(train, kind):
    trainer, model, _, best = train(kind())
    averages = weights(model)
    with torch.no_grad():
        model.head.scale.alpha.add_(1)
    trainer.test(model, loader(1), ckpt_path=best.best_model_path, verbose=False)
    assert close(model.seen[-1], averages) and close(weights(model), averages)


def test_until_it_begins_the_trained_network_is_measured(train):
    _, model, trained, _ = train(EMAWeightAveraging(decay=0.7, update_starting_at_step=9))
    assert close(model.seen[0], trained.steps[3]) and close(model.seen[1], trained.steps[7])
    assert close(model.seen[2], moving(trained.steps[9:], 0.7))


def test_one_that_never_begins_leaves_the_trained_network(train):
    _, model, trained, best = train(EMAWeightAveraging(update_starting_at_step=99))
    assert close(weights(model), trained.steps[-1])
    assert close(trained.steps[-1], torch.load(best.best_model_path, weights_only=True)["state_dict"])


def test_a_class_of_ones_own_is_made_whole_too(train):
    class AtEpochs(WeightAveraging):
        def should_update(self, step_idx=None, epoch_idx=None):
            return epoch_idx is not None

    callback = AtEpochs()
    assert whole(callback) is callback and isinstance(callback, AtEpochs)
    assert callback.state_key == AtEpochs.__qualname__
    _, model, trained, _ = train(callback, max_epochs=2)
    # the validation of an epoch is before its end
    assert close(model.seen[1], trained.steps[3])
    mean = {name: (trained.steps[3][name] + trained.steps[7][name]) / 2 for name in trained.steps[3]}
    assert close(weights(model), mean)


def test_stochastic_averages_are_the_best_checkpoint(train):
    _, model, trained, best = train(StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2), max_epochs=4)
    # Lightning averages what it finds as the epochs begin, from the second on
    found = trained.epochs[1:4]
    mean = {name: sum(each[name] for each in found) / 3 for name in found[0]}
    saved = torch.load(best.best_model_path, weights_only=True)
    assert close(weights(model), mean) and close(mean, saved["state_dict"]) and close(model.seen[-1], mean)
    # the figures of its batch norm are those of the averaged network, gathered in one epoch of their own
    images = torch.cat([images for images, _ in loader(4)])
    assert torch.allclose(saved["state_dict"]["body.0.running_mean"], images.mean((0, 2, 3)), atol=1e-5)
    assert len(model.seen) == 5


@pytest.mark.parametrize("kind", ["EMAWeightAveraging", "WeightAveraging", "StochasticWeightAveraging"])
def test_from_the_command_line_the_averaged_network_is_tested_and_shipped(tmp_path, fit_probe, bnnlight, kind):
    run = tmp_path / "run"
    callback = {"class_path": LIGHTNING + kind}
    if kind == "StochasticWeightAveraging":
        callback["init_args"] = {"swa_lrs": 0.002, "swa_epoch_start": 1}
    options = (f"--trainer.callbacks={json.dumps([callback])}", "--test_after_fit=true", "--trainer.max_epochs=2")
    code, text = fit_probe(run, *options)
    assert code == 0, text
    results = json.loads((run / "results.json").read_text())["results"]
    best, last = (torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    model = load_trained("export", run / "checkpoints/best.ckpt", None).model
    assert all(torch.equal(value, best["state_dict"][name]) for name, value in model.state_dict().items())
    averages = last.get("averaging_state", {})
    if kind == "StochasticWeightAveraging":
        averages = last["callbacks"][kind]["average_model_state"]
        assert all(torch.equal(averages[n], best["state_dict"][n]) for n, _ in model.named_parameters())
    else:
        assert averages["n_averaged"] == 12
        assert not all(torch.equal(last["current_model_state"][n], last["state_dict"][n]) for n in last["state_dict"])
    # measured by another process's way: the checkpoint alone, without callback
    options = (f"--ckpt_path={run / 'checkpoints/best.ckpt'}", "--trainer.callbacks=null")
    code, out, err = bnnlight("test", "--config", run / "config.yaml", *options)
    assert code == 0, err
    assert f"{100 * results['test/acc1']:.2f} %" in out and f"{results['test/loss']:.4f}" in out


def test_a_task_from_a_config_can_be_copied(tmp_path, fit_probe, configs):
    from bnnlight.experiment.experiment import Experiment

    model = Experiment("test", "", ["--config", str(configs / "quickstart.yaml")]).model
    copied = copy.deepcopy(model)
    assert copied.optimizer is model.optimizer
    assert all(torch.equal(a, b) and a is not b for a, b in zip(copied.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("make", [EMAWeightAveraging, WeightAveraging, lambda: StochasticWeightAveraging(0.1)])
def test_a_private_part_that_is_gone_is_told_before_the_training(make):
    for name in type(whole(make())).relies_on:
        callback = make()
        place = next(place for place in (callback, *type(callback).__mro__) if name in vars(place))
        line = f"has no {name} any more: .*averages.py"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match=line):
            patch.delattr(place, name)
            whole(callback)


class Turned(Network):
    """With weights that are turned, and the rotations that validations saw."""

    def __init__(self):
        super().__init__()
        self.body[1] = BinaryConv2d(6, 6, 3, padding=1, weight_parts=[BiRotated])
        self.seen = []

    def validation_step(self, batch, batch_idx):
        (part,) = self.body[1].weight_parts
        self.seen += [part.left.clone(), part.right.clone()]


def test_rotations_are_not_averaged(fit):
    model = Turned()
    fit(Turn(), whole(EMAWeightAveraging(decay=0.5)), network=model, val_data=loader(1), max_steps=12)
    assert any(not torch.equal(rotation, torch.eye(len(rotation))) for rotation in model.seen)
    for rotation in model.seen:
        torch.testing.assert_close(rotation.T @ rotation, torch.eye(len(rotation)))
