"""A run taken up from any of its checkpoints is the run that was never stopped, bit for bit."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from bnnlight.experiment.checkpoint_io import WholeCheckpointIO
from bnnlight.guards.last_checkpoint import LastCheckpoint

VARIANTS = {
    "plain": (),
    "within an epoch": ("--trainer.val_check_interval=0.5",),
    "accumulated": ("--trainer.accumulate_grad_batches=2",),
    "every other epoch": ("--trainer.check_val_every_n_epoch=2",),
    "never validated": ("--trainer.limit_val_batches=0",),
    "by steps": ("--trainer.max_epochs=-1", "--trainer.max_steps=15"),
    "workers": ("--data.num_workers=1",),
}


@pytest.mark.parametrize(
    "variant", [name if name == "within an epoch" else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
)
def test_a_run_goes_on_from_every_checkpoint(tmp_path, fit_probe, same_run, monkeypatch, variant):
    options = ("--last_checkpoint.steps=2", *VARIANTS[variant])
    moments = tmp_path / "moments"
    save = WholeCheckpointIO.save_checkpoint

    def save_and_keep(self, checkpoint, path, storage_options=None):
        """A run that is killed as soon as this is saved leaves just these files."""
        save(self, checkpoint, path, storage_options)
        place = moments / f"{len(list(moments.iterdir())):02}"
        (place / "checkpoints").mkdir(parents=True)
        shutil.copy(path, place / "checkpoints")
        for name in ("metrics.jsonl", "config.yaml"):
            shutil.copy(tmp_path / "whole" / name, place)

    moments.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(WholeCheckpointIO, "save_checkpoint", save_and_keep)
        code, text = fit_probe(tmp_path / "whole", *options)
    assert code == 0, text
    places = sorted(moments.iterdir())
    steps = [torch.load(next(p.glob("checkpoints/*")), weights_only=True)["global_step"] for p in places]
    assert len(set(steps)) >= 4, steps
    for place in places[::2] if variant == "within an epoch" else places:
        code, text = fit_probe(place, *options)
        assert code == 0, text
        same_run(tmp_path / "whole", place)


SCHEDULED = "lightning.pytorch.callbacks.GradientAccumulationScheduler"
MOMENTS = (
    ("on_train_batch_start", 2),
    ("on_train_batch_end", 4),
    ("on_train_batch_end", 6),  # an epoch's last step
    ("on_validation_start", 6),
    ("on_validation_batch_end", 6),
    ("on_validation_end", 6),
    ("on_train_epoch_start", 6),
    ("on_before_optimizer_step", 9),
    ("on_validation_batch_start", 12),
    ("on_train_epoch_end", 12),
    ("on_train_epoch_end", 18),  # there is no step left, and tests may take long
)


def test_a_run_that_is_told_to_stop_at_every_moment_is_the_unbroken_one(tmp_path, fit_probe, same_run):
    # while they validate, averages stand in the place of the trained weights
    averages = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.7}}
    code, text = fit_probe(tmp_path / "whole", f"--trainer.callbacks={json.dumps([averages])}")
    assert code == 0, text
    broken, steps = tmp_path / "broken", []
    for hook, step in MOMENTS:
        told = {"class_path": "noisy.Told", "init_args": {"hook": hook, "step": step}}
        code, text = fit_probe(broken, f"--trainer.callbacks={json.dumps([averages, told])}")
        assert code == 75, (hook, step, text)
        assert f"--run_dir {broken} --resume" in text and "stopped by SIGTERM" in text
        steps.append(torch.load(broken / "checkpoints/last.ckpt", weights_only=True)["global_step"])
    # at once, or a step later where the moment is already part of a step that cannot be the last
    assert [after - step for after, (_, step) in zip(steps, MOMENTS, strict=True)] == [1, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0]
    code, text = fit_probe(broken, f"--trainer.callbacks={json.dumps([averages])}")
    assert code == 0, text
    same_run(tmp_path / "whole", broken)


@pytest.mark.parametrize("callbacks", [[], [{"class_path": SCHEDULED, "init_args": {"scheduling": {"1": 2, "2": 3}}}]])
def test_batches_a_step_are_those_of_the_config_and_of_a_schedule(tmp_path, fit_probe, callbacks):
    told = {"class_path": "noisy.Told", "init_args": {"hook": "on_train_batch_end", "step": 7}}
    code, text = fit_probe(tmp_path, f"--trainer.callbacks={json.dumps([*callbacks, told])}")
    assert code == 75, text
    more = () if callbacks else ("--trainer.accumulate_grad_batches=3",)
    code, text = fit_probe(tmp_path, f"--trainer.callbacks={json.dumps(callbacks)}", *more)
    assert code == 0, text
    # six batches of one; six of two, or one of one and five of three; six of three
    steps = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert steps == (6 + 3 + 2 if callbacks else 6 + 1 + 2 + 2)


def test_another_callbacks_last_checkpoint_lies_beside_it(tmp_path, fit_probe, bnnlight):
    weights = {"monitor": "val/loss", "save_last": True, "save_weights_only": True}
    other = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": weights}
    options = (f"--trainer.callbacks={json.dumps([other])}", "--trainer.max_epochs=2")
    code, text = fit_probe(tmp_path, *options)
    assert code == 0, text
    kept = {p.name: "optimizer_states" in torch.load(p, weights_only=True) for p in tmp_path.glob("checkpoints/*last*")}
    assert kept == {"last.ckpt": True, "last-v1.ckpt": False}
    assert "optimizer_states" in torch.load(tmp_path / "checkpoints/previous.ckpt", weights_only=True)
    best = f"--ckpt_path={tmp_path / 'checkpoints/best.ckpt'}"
    code, _, err = bnnlight("test", "--config", tmp_path / "config.yaml", best)
    assert code == 0, err


def test_where_a_checkpoint_cannot_be_set_aside_none_is_lost(tmp_path, monkeypatch):
    kept = {"next.ckpt": "3", "last.ckpt": "2", "previous.ckpt": "1"}
    for name, text in kept.items():
        (tmp_path / name).write_text(text)
    move = os.replace

    def refuse(source, target):
        if str(target).endswith("previous.ckpt"):
            raise PermissionError(13, "Permission denied", str(target))
        move(source, target)

    checkpoint = LastCheckpoint(dirpath=str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(PermissionError):
            checkpoint.teardown(SimpleNamespace(is_global_zero=True), None, "fit")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == kept
    checkpoint.teardown(SimpleNamespace(is_global_zero=True), None, "fit")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"last.ckpt": "3", "previous.ckpt": "2"}
