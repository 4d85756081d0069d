"""`bnnlight.load`: a run for use from Python."""

import json
import logging
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import bnnlight as package
from bnnlight.nn import Tucker, named_binary_layers


def test_a_run_is_loaded_as_it_was_trained_and_answers_as_predict_does(digits_run, bnnlight, tmp_path):
    run_dir, _ = digits_run
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads(), dict(os.environ)
    level = logging.getLogger("lightning.pytorch").level
    trained = package.load(run_dir)
    # nothing else has changed by it
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert before[2:] == (torch.get_num_threads(), dict(os.environ))
    assert logging.getLogger("lightning.pytorch").level == level

    assert trained.checkpoint == run_dir / "checkpoints/best.ckpt"
    state = torch.load(trained.checkpoint, weights_only=True)["state_dict"]
    own = trained.network.state_dict()
    assert own and all(torch.equal(value, state[f"backbone.{name}"]) for name, value in own.items())
    assert all(isinstance(layer.latent, Tucker) for _, layer in named_binary_layers(trained.network))
    assert not trained.task.training and trained.task.class_names == [str(n) for n in range(10)]
    assert trained.config["model"]["init_args"]["backbone"]["init_args"]["width"] == 0.125

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    with torch.inference_mode():
        shares = trained.network(trained.data.eval_transform(picture)[None]).softmax(1)[0]
    code, _, err = bnnlight("predict", "--model", trained.checkpoint, tmp_path / "a.png", "--output", tmp_path / "out")
    assert code == 0, err
    best = json.loads((tmp_path / "out/predictions.json").read_text())["images"][0]["classes"][0]
    assert best["class"] == str(int(shares.argmax()))


def test_a_checkpoint_elsewhere_needs_its_config(digits_run, tmp_path, check_one_line):
    run_dir, _ = digits_run
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine/a.ckpt"
    shutil.copy(run_dir / "checkpoints/last.ckpt", file)
    with pytest.raises(FileNotFoundError) as error:
        package.load(file)
    check_one_line(error, "config of the run not found", "name it with config=FILE")
    loaded = package.load(str(file), run_dir / "config.yaml")
    assert loaded.checkpoint == file and isinstance(loaded.network, torch.nn.Module)


def test_a_config_is_answered_with_its_run(digits_run, check_one_line):
    run_dir, _ = digits_run
    with pytest.raises(ValueError) as error:
        package.load(run_dir / "config.yaml")
    check_one_line(error, f"{run_dir}/config.yaml is a config: give its run's directory, {run_dir}, or one of")


def test_what_is_no_run_is_told_in_one_line(tmp_path, check_one_line):
    with pytest.raises(FileNotFoundError) as error:
        package.load(tmp_path / "nothing")
    check_one_line(error, "no such run or checkpoint", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError) as error:
        package.load(tmp_path)
    check_one_line(error, tmp_path, "has no checkpoints/best.ckpt or last.ckpt", "bnnlight.deploy.Runtime")
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        package.lod  # noqa: B018


def test_the_package_itself_imports_nothing_large():
    code = "import sys, bnnlight; print(*{name.split('.')[0] for name in sys.modules} & {'torch', 'numpy'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
