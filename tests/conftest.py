"""Tiny data sets in the real formats, drawn for each test."""

import hashlib
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from bnnlight.cli import main


@pytest.fixture
def draw_folder(tmp_path):
    """Write ROOT/SPLIT/CLASS/N.png, each of one colour: red = 10 × class, green = N."""

    def draw(split, classes=("ant", "bee", "cat"), num_images=4, size=(12, 12), root=tmp_path):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(num_images):
                Image.new("RGB", size, (10 * label, number, 200)).save(folder / f"{number:03}.png")
        return root

    return draw


@pytest.fixture
def write_fashion(tmp_path):
    """Write Fashion-MNIST's four idx files; item i has label i % 10 and first pixel i % 256."""

    def write(num_train=200, num_test=30, root=tmp_path):
        raw = root / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for prefix, num in (("train", num_train), ("t10k", num_test)):
            images = rng.integers(0, 256, (num, 28, 28), dtype=np.uint8)
            images[:, 0, 0] = np.arange(num) % 256
            labels = (np.arange(num) % 10).astype(np.uint8)
            header = struct.pack(">4i", 0x803, num, 28, 28)
            (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
            header = struct.pack(">2i", 0x801, num)
            (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
        return root

    return write


@pytest.fixture
def write_cifar(tmp_path, monkeypatch):
    """Write CIFAR's pickled batches, planar rows as published; return root and test images.

    Torchvision compares checksums with the published ones; here they are replaced by those of
    the files just written, so that the comparison itself still takes place.
    """

    def write(dataset_class=datasets.CIFAR10, root=tmp_path, images_per_file=100):
        key = "labels" if dataset_class is datasets.CIFAR10 else "fine_labels"
        num_classes = 10 if dataset_class is datasets.CIFAR10 else 100
        folder = root / dataset_class.base_folder
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)

        def save(name, content):
            (folder / name).write_bytes(pickle.dumps(content))
            return hashlib.md5((folder / name).read_bytes()).hexdigest()

        for list_name in ("train_list", "test_list"):
            checksums = []
            for name, _ in getattr(dataset_class, list_name):
                rows = rng.integers(0, 256, (images_per_file, 3 * 32 * 32), dtype=np.uint8)
                labels = [number % num_classes for number in range(images_per_file)]
                checksums.append([name, save(name, {"data": rows, key: labels})])
            monkeypatch.setattr(dataset_class, list_name, checksums)
        meta = dict(dataset_class.meta)
        names = [f"name{label}" for label in range(num_classes)]
        meta["md5"] = save(meta["filename"], {meta["key"]: names})
        monkeypatch.setattr(dataset_class, "meta", meta)
        return root, rows.reshape(-1, 3, 32, 32)

    return write


@pytest.fixture
def real_data():
    """Return the folder of a real data set, or skip the test where it is absent."""

    def find(name):
        default = Path(__file__).parents[1] / "data"
        folder = Path(os.environ.get("BNNLIGHT_DATA", default)) / name
        if not folder.is_dir():
            pytest.skip(f"real data absent: {folder} (set BNNLIGHT_DATA to the folder above)")
        return folder

    return find


@pytest.fixture
def check_one_line():
    """Check that an error's message is one line and contains every given part."""

    def check(error, *parts):
        message = str(error.value)
        assert "\n" not in message
        for part in parts:
            assert str(part) in message, message

    return check


@pytest.fixture
def bnnlight(tmp_path, monkeypatch, capsys):
    """Run the command line in this process, in an empty folder; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    # set, so that what a run writes to them is taken back after the test
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("BNNLIGHT_RUN_DIR", "")

    def run(*args):
        capsys.readouterr()
        code = main([str(a) for a in args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def bnnlight_error(bnnlight):
    """Run the command line, check that it fails with one line of its own, and return (code, line)."""

    def run(*args):
        code, _, err = bnnlight(*args)
        lines = [line for line in err.splitlines() if line.startswith(("bnnlight ", "bnnlight: "))]
        assert code != 0
        assert len(lines) == 1, err
        # the line is the last word, and no traceback came before it
        assert err.splitlines()[-1] == lines[0]
        assert "Traceback" not in err
        return code, lines[0]

    return run


@pytest.fixture(scope="session")
def configs():
    """The folder of the shipped configs."""
    return Path(__file__).parents[1] / "configs"


QUICK = (
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.logger=false",
    "--trainer.accelerator=cpu",
)
"""Options that spare a test of the command line what it does not look at."""


@pytest.fixture(scope="session")
def quick():
    return QUICK


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory, configs):
    """The directory of one short run on digits, offline W&B and all, made by the real command."""
    folder = tmp_path_factory.mktemp("digits")
    run_dir = folder / "run"
    command = [
        *(sys.executable, "-m", "bnnlight", "fit", "--config", str(configs / "quickstart.yaml")),
        *("--trainer.max_epochs=2", "--model.backbone.width=0.125", "--trainer.accelerator=cpu"),
        f"--run_dir={run_dir}",
    ]
    # no home: a new user, not logged in anywhere
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT"))} | {"HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return run_dir, done.stdout
