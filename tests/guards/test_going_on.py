"""A run that is stopped at any of its checkpoints and goes on is the run that was never stopped, whatever it has in it.

Weights, averages, optimizer, rates, callbacks' states, checkpoint files and logged figures are compared bit for bit.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from fixtures.probe_runs import differences, kept

from bnnlight.experiment.checkpoint_io import WholeCheckpointIO

LIGHTNING = "lightning.pytorch.callbacks."


def callback(class_path, **init_args):
    return {"class_path": class_path, "init_args": init_args}


STEADY = ("--model.scheduler=torch.optim.lr_scheduler.StepLR", "--model.scheduler.step_size=1")
PLATEAU = (
    *("--model.scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.monitor=val/acc1"),
    *("--model.scheduler.mode=min", "--model.scheduler.patience=0", "--model.scheduler.factor=0.5"),
)
SECOND = callback(LIGHTNING + "ModelCheckpoint", monitor="val/loss", save_top_k=2, filename="{epoch}-{step}")
WATCHED = {
    "nothing": ((), ()),
    "EarlyStopping": ((callback(LIGHTNING + "EarlyStopping", monitor="val/acc1", mode="min", patience=2),), STEADY),
    "ReduceLROnPlateau": ((), PLATEAU),
    "a second ModelCheckpoint": ((SECOND,), ()),
    "ModelCheckpoint by steps": (
        (callback(LIGHTNING + "ModelCheckpoint", every_n_train_steps=2, save_top_k=-1, filename="steps-{step}"),), ()
    ),
    "EMA": ((callback(LIGHTNING + "EMAWeightAveraging", decay=0.7),), ()),
    "SWA": ((callback(LIGHTNING + "StochasticWeightAveraging", swa_lrs=0.002, swa_epoch_start=2),), ()),
    "Stages": ((callback("bnnlight.callbacks.Stages", real_epochs=1, activation_epochs=1),), ()),
    "Sharpen": ((callback("bnnlight.callbacks.Sharpen", interval=2),), ()),
    "BackboneFinetuning": (
        (callback(LIGHTNING + "BackboneFinetuning", unfreeze_backbone_at_epoch=1, backbone_initial_lr=0.001),), STEADY
    ),
    "a schedule of accumulation": (
        (callback(LIGHTNING + "GradientAccumulationScheduler", scheduling={"1": 2, "2": 3}),), ()
    ),
    "save_last": ((callback(LIGHTNING + "ModelCheckpoint", monitor="val/loss", save_last=True),), ()),
    "gradient accumulation": ((), ("--trainer.accumulate_grad_batches=2",)),
    "sums of a step": ((), ("--model.class_path=noisy.Summing",)),
}  # fmt: skip
VALIDATED = {
    "once an epoch": (),
    "twice an epoch": ("--trainer.val_check_interval=0.5",),
    "every second epoch": ("--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=4"),
}
# two and more validations between two optimizer steps; of each a stop takes long
OFTEN = ("--trainer.val_check_interval=0.2", "--trainer.accumulate_grad_batches=4", "--trainer.max_epochs=2")
WATCHED_OFTEN = ("nothing", "EarlyStopping", "ReduceLROnPlateau", "a second ModelCheckpoint", "EMA")
SHORT = {("EarlyStopping", "twice an epoch"), ("ReduceLROnPlateau", "once an epoch")}


def figures(run_dir):
    """Step and key → all that was logged there, in order."""
    found = {}
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for key in row.keys() - {"epoch"}:
            if not key.startswith(("time/", "mem/")):
                found.setdefault((row["step"], key), []).append(row[key])
    return found


def checkpoints(run_dir):
    """Content of all checkpoints but the one before the last, which the other is meant to differ in."""
    paths = [path for path in run_dir.rglob("*.ckpt") if path.name != "previous.ckpt"]
    return {str(path.relative_to(run_dir)): kept(torch.load(path, weights_only=True)) for path in paths}


@pytest.fixture
def stops(tmp_path, fit_probe, monkeypatch):
    """Run to the end; return the run's directory, and what was in it behind each checkpoint that was written."""

    def run(run_dir, *options):
        moments = tmp_path / "moments"
        save = WholeCheckpointIO.save_checkpoint

        def save_and_keep(self, checkpoint, path, storage_options=None):
            save(self, checkpoint, path, storage_options)
            copied = moments / f"{len(list(moments.iterdir())):02}-{Path(path).stem}"
            shutil.copytree(run_dir, copied, ignore=shutil.ignore_patterns("wandb", ".lock"))

        moments.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(WholeCheckpointIO, "save_checkpoint", save_and_keep)
            code, text = fit_probe(run_dir, *options)
        assert code == 0, text
        return run_dir.rename(tmp_path / "whole"), sorted(moments.iterdir())

    return run


@pytest.mark.parametrize(
    ("watched", "validated"),
    [
        pytest.param(w, v, marks=() if (w, v) in SHORT else pytest.mark.slow, id=f"{w}, validated {v}")
        for w in WATCHED
        for v in VALIDATED
    ]
    + [pytest.param(w, "more often than it steps", marks=pytest.mark.slow, id=f"{w}, often") for w in WATCHED_OFTEN],
)
def test_a_run_stopped_at_any_checkpoint_is_the_unbroken_one(tmp_path, stops, fit_probe, watched, validated):
    callbacks, more = WATCHED[watched]
    options = ["--last_checkpoint.steps=2", *more, *VALIDATED.get(validated, OFTEN)]
    if callbacks:
        options.append(f"--trainer.callbacks={json.dumps(callbacks)}")
    run_dir = tmp_path / "run"
    whole, moments = stops(run_dir, *options)
    assert len(moments) >= 4
    expected, files = figures(whole), checkpoints(whole)
    for moment in moments:
        moment.rename(run_dir)
        code, text = fit_probe(run_dir, *options)
        assert code == 0, (moment.name, text)
        assert differences(expected, figures(run_dir)) == [], moment.name
        assert differences(files, checkpoints(run_dir)) == [], moment.name
        shutil.rmtree(run_dir)
