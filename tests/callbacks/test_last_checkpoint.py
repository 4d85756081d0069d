"""A run taken up from any of its checkpoints is the run that was never stopped, bit for bit."""

import json
import shutil

import pytest
import torch

from bnnlight.commands.checkpoint_io import WholeCheckpointIO

PROBE = """
import os, random, signal
import lightning as L
import numpy as np
import torch
from bnnlight.tasks import ClassificationTask


class Noisy(ClassificationTask):
    "Draws from every generator in each step, so that a state that was not kept shows."

    def training_step(self, batch, batch_idx):
        images, labels = batch
        noise = torch.rand(()) + np.random.rand() + random.random()
        return super().training_step((images + 0.1 * noise.item() * torch.rand_like(images), labels), batch_idx)


class Told(L.Callback):
    "Sends this process a signal at one moment."

    def __init__(self, hook: str, step: int, kind: str = "SIGTERM"):
        def send(trainer, *args, **kwargs):
            if trainer.global_step == step and not trainer.sanity_checking:
                os.kill(os.getpid(), getattr(signal, kind))

        setattr(self, hook, send)
"""

OPTIONS = (
    *("--model.class_path=probe.Noisy", "--model.backbone.width=0.0625", "--trainer.max_epochs=3"),
    *("--trainer.limit_train_batches=6", "--trainer.limit_val_batches=2", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--pictures.count=0"),
    *("--trainer.logger=bnnlight.tracking.MetricsFile", "--trainer.log_every_n_steps=1", "--flip_rates.interval=2"),
    *("--data.num_workers=0", "--test_after_fit=false", "--resume"),
)


@pytest.fixture
def fit(tmp_path, configs, bnnlight, monkeypatch):
    """Run `bnnlight fit` in this process; return the exit code and what it said."""
    (tmp_path / "probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(tmp_path)

    def run(run_dir, *options):
        code, out, err = bnnlight(
            "fit", "--config", configs / "quickstart.yaml", *OPTIONS, f"--run_dir={run_dir}", *options
        )
        return code, out + err

    return run


def figures(run_dir):
    """What was logged, in its order, each once: Lightning logs the learning rate with every batch of a step."""
    found = {}
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        found |= {(row["step"], key): value for key, value in row.items() if not key.startswith(("time/", "mem/"))}
    return list(found.items())


def ends_alike(one, other):
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (one, other)]
    assert states[0]["global_step"] == states[1]["global_step"]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name
    moments = [state["optimizer_states"][0]["state"] for state in states]
    for index, entry in moments[0].items():
        assert all(torch.equal(value, moments[1][index][key]) for key, value in entry.items())
    assert states[0]["processes"][0]["random"]["torch"].equal(states[1]["processes"][0]["random"]["torch"])
    assert states[0]["lr_schedulers"] == states[1]["lr_schedulers"]


VARIANTS = {
    "plain": (),
    "within an epoch": ("--trainer.val_check_interval=0.5",),
    "accumulated": ("--trainer.accumulate_grad_batches=2",),
    "every other epoch": ("--trainer.check_val_every_n_epoch=2",),
    "never validated": ("--trainer.limit_val_batches=0",),
    "by steps": ("--trainer.max_epochs=-1", "--trainer.max_steps=15"),
    "workers": ("--data.num_workers=1",),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_goes_on_from_every_checkpoint(tmp_path, fit, monkeypatch, variant):
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
        code, text = fit(tmp_path / "whole", *options)
    assert code == 0, text
    places = sorted(moments.iterdir())
    steps = [torch.load(next(p.glob("checkpoints/*")), weights_only=True)["global_step"] for p in places]
    assert len(set(steps)) >= 4, steps
    for place in places:
        code, text = fit(place, *options)
        assert code == 0, text
        ends_alike(tmp_path / "whole", place)
        assert figures(place) == figures(tmp_path / "whole"), place


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
)


def test_a_run_that_is_told_to_stop_at_every_moment_is_the_unbroken_one(tmp_path, fit):
    code, text = fit(tmp_path / "whole")
    assert code == 0, text
    broken, steps = tmp_path / "broken", []
    for hook, step in MOMENTS:
        told = {"class_path": "probe.Told", "init_args": {"hook": hook, "step": step}}
        code, text = fit(broken, f"--trainer.callbacks={json.dumps([told])}")
        assert code == 75, (hook, step, text)
        assert f"--run_dir {broken} --resume" in text and "stopped by SIGTERM" in text
        steps.append(torch.load(broken / "checkpoints/last.ckpt", weights_only=True)["global_step"])
    # at once, or a step later where the moment is already part of a step that cannot be the last
    assert [after - step for after, (_, step) in zip(steps, MOMENTS, strict=True)] == [1, 0, 0, 0, 0, 0, 1, 1, 0, 1]
    code, text = fit(broken)
    assert code == 0, text
    ends_alike(tmp_path / "whole", broken)
    assert figures(broken) == figures(tmp_path / "whole")
