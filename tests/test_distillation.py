"""From a real-valued teacher to a binary network that has learned from it, by the real commands."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from bnnlight.tracking.dashboard import as_record, sections

REAL = {
    "class_path": "bnnlight.nn.real_valued",
    "init_args": {
        "model": {
            "class_path": "bnnlight.backbones.ResNet",
            "init_args": {"blocks": [1], "num_classes": 10, "in_channels": 1, "width": 0.25, "stem": "small"},
        }
    },
}
SHORT = (
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=8", "--data.num_workers=0", "--pictures.count=0"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"),
    *("--trainer.logger=bnnlight.tracking.MetricsFile", "--trainer.log_every_n_steps=1"),
)
PEOPLE = (
    *("--data.num_train=8", "--data.num_val=4", "--data.num_test=4", "--data.batch_size=4"),
    *("--data.image_size=64", "--model.backbone.depth=1"),
)


@pytest.fixture
def fit(bnnlight, configs, tmp_path):
    """Run `bnnlight fit` on a config in a few steps; return the run's directory."""

    def run(config, name, *options):
        run_dir = tmp_path / name
        code, _, err = bnnlight("fit", "--config", configs / config, *SHORT, *options, f"--run_dir={run_dir}")
        assert code == 0, err
        return run_dir

    return run


@pytest.fixture
def teacher(fit):
    """The checkpoint of a small real-valued network that knows digits a little."""
    return fit("quickstart.yaml", "real", f"--model.backbone={json.dumps(REAL)}") / "checkpoints/best.ckpt"


def losses(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: {k: v for k, v in row.items() if "train/loss" in k} for row in rows if "train/loss" in row}


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)


def test_digits(fit, teacher, bnnlight, bnnlight_error, tmp_path):
    small = "--model.backbone.width=0.125"
    plain = fit("quickstart.yaml", "plain", small)
    options = (f"--model.teacher.checkpoint={teacher}", "--model.teacher.temperature=4", "--model.teacher.weight=0.75")
    run_dir = fit("quickstart.yaml", "taught", small, *options)

    logged = losses(run_dir)
    assert len(logged) == 8
    for row in logged.values():
        parts = 0.25 * row["train/loss_task"] + 0.75 * row["train/loss_teacher"]
        assert row["train/loss"] == pytest.approx(parts, rel=1e-5)
    # the first step's loss against the labels is that of the run without a teacher: the same network and pictures
    assert logged[0]["train/loss_task"] == losses(plain)[0]["train/loss"]
    shown = {key for part in sections() for panel in part.panels for key in as_record(panel).get("y", [])}
    assert set(logged[0]) <= shown

    one, other = checkpoint(plain), checkpoint(run_dir)
    assert one.keys() == other.keys()
    assert {k: v.shape for k, v in one["state_dict"].items()} == {k: v.shape for k, v in other["state_dict"].items()}
    summaries = [bnnlight("summary", "--config", d / "config.yaml", "--json")[1] for d in (plain, run_dir)]
    assert json.loads(summaries[0]) == json.loads(summaries[1])

    # all that is done with a trained network needs no teacher
    shutil.rmtree(teacher.parents[1])
    best = run_dir / "checkpoints/best.ckpt"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "digit.png")
    for command in (
        ("validate", "--config", run_dir / "config.yaml", "--ckpt_path", best),
        ("test", "--config", run_dir / "config.yaml", "--ckpt_path", best),
        ("predict", tmp_path / "digit.png", "--model", best, "--output", tmp_path / "found"),
        ("export", "--ckpt_path", best, "--format", "packed", "--output", tmp_path / "model"),
    ):
        code, _, err = bnnlight(*command)
        assert code == 0, err
    code, line = bnnlight_error("fit", "--config", run_dir / "config.yaml", f"--run_dir={tmp_path / 'again'}")
    assert (code, line) == (2, f"bnnlight fit: error: teacher: checkpoint not found: {teacher}")
    # before anything was logged
    assert not (tmp_path / "again/metrics.jsonl").exists()


@pytest.mark.parametrize("explicit", [True, False])
def test_without_weight_the_run_is_the_plain_one(fit, teacher, explicit):
    options = ["--model.backbone.width=0.125", "--test_after_fit=false"]
    plain = fit("quickstart.yaml", "plain", *options)
    options += [f"--model.teacher.checkpoint={teacher}", "--model.teacher.weight=0"]
    if explicit:
        options.append(f"--model.teacher.backbone={json.dumps(REAL)}")
    states = [checkpoint(d)["state_dict"] for d in (plain, fit("quickstart.yaml", "taught", *options))]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_run_that_goes_on_is_the_run_that_was_never_stopped(teacher, fit_probe, same_run, tmp_path):
    options = (f"--model.teacher.checkpoint={teacher}", "--model.teacher.temperature=2")
    code, said = fit_probe(tmp_path / "whole", *options)
    assert code == 0, said
    told = {"class_path": "noisy.Told", "init_args": {"hook": "on_train_batch_end", "step": 8}}
    code, said = fit_probe(tmp_path / "broken", *options, f"--trainer.callbacks={json.dumps([told])}")
    assert code == 75, said
    code, said = fit_probe(tmp_path / "broken", *options)
    assert code == 0, said
    same_run(tmp_path / "whole", tmp_path / "broken")
    assert all(len(row) == 3 for row in losses(tmp_path / "broken").values())


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_people(fit, loss):
    options = (*PEOPLE, f"--model.loss={loss}", "--model.backbone.features=32", "--model.backbone.lean=true")
    network = {"num_joints": 16, "features": 32, "depth": 1, "stacks": 2}
    hourglass = {"class_path": "bnnlight.backbones.StackedHourglass", "init_args": network}
    real = {"class_path": "bnnlight.nn.real_valued", "init_args": {"model": hourglass}}
    run = fit("hg_people.yaml", "real", *PEOPLE[:-1], f"--model.loss={loss}", f"--model.backbone={json.dumps(real)}")
    made = f"--model.teacher.checkpoint={run / 'checkpoints/best.ckpt'}"
    run_dir = fit(
        "hg_people.yaml", "taught", *options, "--model.backbone.features=32", "--model.backbone.lean=true", made
    )
    logged = losses(run_dir)
    assert len(logged) == 2
    for row in logged.values():
        assert row["train/loss"] == pytest.approx((row["train/loss_task"] + row["train/loss_teacher"]) / 2, rel=1e-5)
        assert row["train/loss_teacher"] > 0
    assert "test/pckh" in json.loads((run_dir / "results.json").read_text())["results"]
