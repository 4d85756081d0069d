"""`bnnlight export --format lce`: a file for Larq Compute Engine that gives the checkpoint's answers."""

import numpy as np
import pytest
import torch
from fixtures.lce_in_torch import run
from fixtures.lce_interpreter import interpret

from bnnlight.data import DigitsDataModule
from bnnlight.experiment.trained.network import load_trained


@pytest.fixture
def best(digits_run):
    return digits_run[0] / "checkpoints/best.ckpt"


@pytest.fixture
def exported(bnnlight, best, tmp_path):
    code, out, err = bnnlight("export", "--ckpt_path", best, "--format", "lce", "--output", tmp_path / "m")
    assert code == 0, err
    assert "model.tflite" in out and "not compared with the checkpoint" in out
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["README.md", "model.tflite"]
    return tmp_path / "m"


@torch.inference_mode()
def checked(best, find):
    """Compares with the checkpoint on the digits' test pictures."""
    data = DigitsDataModule()
    data.setup("test")
    images = torch.stack([image for image, _ in data.test_set])
    wanted = load_trained("test", best, None).model.eval()(images).numpy()
    found = find(images.numpy())
    assert len(found) == 360
    assert (found.argmax(1) == wanted.argmax(1)).all()
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_answers_as_the_checkpoint(exported, best):
    content = (exported / "model.tflite").read_bytes()
    checked(best, lambda images: run(content, images)[0])


def test_answers_as_the_checkpoint_by_the_engine(exported, best, tmp_path):
    content = (exported / "model.tflite").read_bytes()
    checked(best, lambda images: interpret(tmp_path, [(content, images)])[0][0])


def test_the_card_tells_how_it_is_run(exported):
    card = (exported / "README.md").read_text()
    assert "float32 of shape (1, 8, 8, 1), grey" in card
    assert 'open("m/model.tflite", "rb")' in card and "bnnlight predict" not in card
    assert "was not compared with the checkpoint" in card


def test_predict_says_where_it_runs(bnnlight_error, exported, tmp_path):
    (tmp_path / "a.png").touch()
    code, line = bnnlight_error("predict", tmp_path / "a.png", "--model", exported)
    assert code == 2 and "runs in Larq Compute Engine alone" in line


def test_comparing_cannot_be_asked_for(bnnlight_error, best, tmp_path):
    command = ("export", "--ckpt_path", best, "--format", "lce", "--output", tmp_path / "new/m", "--num_check", "5")
    code, line = bnnlight_error(*command)
    assert code == 2 and "format lce does not run here" in line and "--num_check" in line
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_taken_is_refused_before_anything_is_written(bnnlight_error, best, tmp_path, monkeypatch):
    # all of them
    monkeypatch.setattr("bnnlight.deploy.formats.larq.limits._reason", lambda step, shapes: "is wide: make it narrow")
    command = ("export", "--ckpt_path", best, "--format", "lce", "--output", tmp_path / "new/m")
    code, line = bnnlight_error(*command)
    assert code == 2 and "cannot take these layers: stem.0" in line and "make it narrow" in line
    assert not (tmp_path / "new").exists()
