"""The count of pictures left out: of the steps that were taken, of all processes, and over a stop."""

import json
import os
import sys
from collections import deque
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from fixtures.processes import run_to_end
from PIL import Image

from bnnlight.callbacks import BadImages


class Loader:
    """Batches, each with the number of pictures missing from it."""

    named = frozenset()

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        self.skipped = deque()
        for batch, missing in self.batches:
            self.skipped.append(missing)
            yield batch


class Task(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return (self.weight * batch).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def fit(tmp_path):
    from bnnlight.tracking import MetricsFile

    def run(missing, val=(), interval=2, resume=None, **options):
        callback = BadImages(interval)
        trainer = lightning.Trainer(
            accelerator="cpu",
            callbacks=[callback],
            logger=MetricsFile(str(tmp_path)),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
            **options,
        )
        loaders = [Loader([(torch.ones(2), count) for count in counts]) for counts in (missing, val)]
        trainer.fit(Task(), loaders[0], loaders[1] if val else None, ckpt_path=resume)
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines() if (tmp_path / "metrics.jsonl").exists() else []
        rows = map(json.loads, lines)
        return trainer, [(row["step"], row["data/bad_images"]) for row in rows if "data/bad_images" in row]

    return run


def test_logged_when_it_has_grown_and_of_the_steps_that_were_taken(fit):
    # a look after every second step and at the end of each epoch of five
    _, logged = fit([1, 0, 0, 0, 2], max_epochs=2)
    assert logged == [(2, 1), (5, 3), (6, 4), (10, 6)]


def test_batches_fetched_ahead_do_not_count(fit):
    _, logged = fit([1, 0, 50, 50], max_epochs=2, limit_train_batches=2)
    assert logged == [(2, 1), (4, 2)]


def test_nothing_is_logged_where_nothing_is_left_out(fit):
    assert fit([0, 0, 0], max_epochs=1)[1] == []


def test_a_run_that_goes_on_counts_on(fit, tmp_path):
    trainer, _ = fit([1, 1, 1], max_epochs=1, interval=100)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["bad_images"]["count"] == 3
    _, logged = fit([1, 0, 1], max_epochs=2, resume=tmp_path / "a.ckpt", interval=100)
    assert logged == [(3, 3), (6, 5)]


def test_a_count_between_two_looks_is_saved_too():
    callback, checkpoint = BadImages(interval=100), {}
    loader = SimpleNamespace(skipped=deque([4, 9]), named=set())
    trainer = SimpleNamespace(train_dataloader=loader, world_size=1, global_step=1)
    callback.on_train_batch_end(trainer, None)
    callback.on_save_checkpoint(trainer, None, checkpoint)
    assert checkpoint["bad_images"]["count"] == 4


def test_a_checkpoint_without_a_count():
    BadImages().on_load_checkpoint(None, None, {})


def test_what_measuring_leaves_out_is_said_when_it_changes(fit, capsys):
    fit([0, 0], val=[2, 1, 0], max_epochs=3, num_sanity_val_steps=1)
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert lines == ["validation: 3 pictures were left out, unreadable"]


def test_two_processes_count_together_and_name_each_file_once(draw_folder, configs, tmp_path):
    root = draw_folder("train", num_images=8, root=tmp_path / "set")
    draw_folder("val", num_images=3, root=root)
    for name in ("train/ant/001.png", "train/bee/005.png", "val/cat/002.png"):
        (root / name).write_bytes(b"")
    # of numbers that have no range
    Image.fromarray(np.zeros((8, 8), np.float32)).save(root / "train/cat/000.png", format="TIFF")
    options = (
        *("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.max_epochs=3", "--num_threads=1"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--test_after_fit=false"),
        *("--data.image_size=32", "--data.batch_size=3", "--data.num_workers=1", "--data.on_bad_image=skip"),
        *("--model.backbone=bnnlight.backbones.ResNet", "--model.backbone.blocks=[1]", "--model.backbone.width=0.0625"),
        *("--model.backbone.latent=bnnlight.nn.Dense", "--model.backbone.num_classes=3", "--run_dir=run"),
        *(f"--data.root={root}", "--trainer.logger=bnnlight.tracking.MetricsFile", "--bad_images.interval=2"),
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT", "PL_"))}
    command = [sys.executable, "-m", "bnnlight", "fit", "--config", configs / "resnet18_imagenet.yaml", *options]
    done = run_to_end(command, env | {"OMP_NUM_THREADS": "1"}, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    counts = {row["step"]: row["data/bad_images"] for row in rows if "data/bad_images" in row}
    # 24 pictures are four steps of twice three: each epoch has all three bad ones, logged as soon as they were seen
    assert [max(count for step, count in counts.items() if step <= last) for last in (4, 8, 12)] == [3, 6, 9]
    assert list(counts.values()) == sorted(set(counts.values()))
    named = [line.split()[5] for line in done.stderr.splitlines() if line.startswith("left out: ")]
    assert sorted(named) == sorted(
        f"{root}/{name}:" for name in ("train/ant/001.png", "train/bee/005.png", "train/cat/000.png", "val/cat/002.png")
    )
    assert done.stderr.count("validation: 1 picture was left out, unreadable") == 1
