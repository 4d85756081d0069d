"""Tiny data sets in the real formats, drawn for each test."""

import contextlib
import gc
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import fixtures.triton_interpreter  # noqa: F401  before anything else imports triton
import numpy as np
import pytest
import scipy.io
from fixtures.probe_runs import fit_probe, same_run
from fixtures.shipped import ship
from fixtures.tiny_data import data_for
from PIL import Image, ImageDraw
from torchvision import datasets

from bnnlight.cli import main
from bnnlight.data.loading.worker_signals import hear_of_lost_workers
from bnnlight.imaging.skeletons import LSP, MPII

try:
    from bnnlight.deploy.formats.openvino_compiled import signal_stack_kept
except ModuleNotFoundError:  # the tests for GPUs run on machines without OpenVINO
    signal_stack_kept = contextlib.nullcontext

__all__ = ["data_for", "fit_probe", "same_run", "ship"]

# A test may leave what OpenVINO compiled as garbage. To collect it in a loader process of a later test would never end:
# OpenVINO waits for threads that a fork leaves behind.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gc.freeze)

# before any test's Trainer, so that what a later test hears does not depend on their order
hear_of_lost_workers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """OpenVINO's networks leave a thread a signal stack that is freed with them: the next signal would be fatal."""
    with signal_stack_kept():
        return (yield)


def pytest_collection_modifyitems(items):
    """Files that start processes come first: they take longest, and the other cores would wait for one at the end."""
    starts = ("subprocess", "Started", "run_to_end")
    items.sort(key=lambda item: not any(hasattr(item.module, name) for name in starts))


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
    # where a config lies its own classes are looked for
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*args):
        capsys.readouterr()
        try:
            code = main([str(a) for a in args])
        except SystemExit as stop:
            code = stop.code
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


def stick_figure(rng, names, center, height_px):
    """Joints (J, 2) of somebody who stands facing the camera, each moved a little."""
    places = {
        **{"ankle": (0.1, 0.45), "knee": (0.1, 0.2), "hip": (0.08, -0.05), "pelvis": (0, -0.05), "thorax": (0, -0.3)},
        **{"wrist": (0.3, -0.05), "elbow": (0.2, -0.15), "shoulder": (0.12, -0.3), "neck": (0, -0.34)},
        **{"upper neck": (0, -0.34), "head top": (0, -0.5)},
    }
    rows = []
    for name in names:
        side, _, rest = name.partition(" ")
        x, y = places[rest if side in ("left", "right") else name]
        rows.append((-x if side == "right" else x, y))
    return np.array(center) + height_px * np.array(rows) + rng.uniform(-2, 2, (len(names), 2))


def draw_figure(path, joints, limbs, size):
    """Write a picture of joints, in pixels from 0, with lines between them."""
    image = Image.new("RGB", size, (90, 110, 90))
    for a, b in limbs:
        ImageDraw.Draw(image).line([*map(float, joints[a]), *map(float, joints[b])], (230, 190, 160), 5)
    image.save(path, quality=95)


@pytest.fixture
def write_mpii(tmp_path):
    """Write ROOT/images, annot/train.json, annot/valid.json (raw form) and annot/gt_valid.mat; return ROOT.

    Everybody has a picture of 160×120 px and stands in its middle; every second one lacks the left wrist. Head
    boxes of the validation people are 12 by 16 px.
    """

    def write(root=tmp_path / "mpii", num_people=6):
        (root / "images").mkdir(parents=True)
        (root / "annot").mkdir()
        rng, lists = np.random.default_rng(0), {}
        for split in ("train", "valid"):
            lists[split] = []
            for number in range(num_people):
                joints = stick_figure(rng, MPII.joints, (80, 60), 80)
                name = f"{split}{number:03}.jpg"
                draw_figure(root / "images" / name, joints, MPII.limbs, (160, 120))
                visible = np.ones(16, int)
                joints = np.round(joints + 1, 4)
                if number % 2:
                    joints[15], visible[15] = -1, 0
                person = {"image": name, "center": [81.0, 55.0], "scale": 0.42, "joints": joints.tolist()}
                lists[split].append({**person, "joints_vis": visible.tolist()})
            (root / "annot" / f"{split}.json").write_text(json.dumps(lists[split]))
        joints = np.array([person["joints"] for person in lists["valid"]])
        missing = 1 - np.array([person["joints_vis"] for person in lists["valid"]])
        heads = np.tile([[75.0, 20.0], [87.0, 36.0]], (num_people, 1, 1))
        heads_and_joints = {
            "pos_gt_src": np.where(missing[..., None], 0, joints).transpose(1, 2, 0),
            "headboxes_src": heads.transpose(1, 2, 0),
            "jnt_missing": missing.T.astype(np.uint8),
        }
        scipy.io.savemat(root / "annot" / "gt_valid.mat", heads_and_joints)
        return root

    return write


@pytest.fixture
def write_lsp(tmp_path, monkeypatch):
    """Write LSP and LSP Extended, each a folder with images/ and joints.mat; return both folders.

    As published, LSP's flag 1 means occluded, and LSP Extended's means visible: there the left wrist of every
    second person is not, and stands at (0, 0). LSP's test set begins after `num_train` pictures instead of 1,000.
    """

    def write(root=tmp_path, num_train=6, num_test=4, num_extended=6):
        monkeypatch.setattr("bnnlight.data.keypoints.lsp.LSP_NUM_TRAIN", num_train)
        rng = np.random.default_rng(0)
        wrist = LSP.joints.index("left wrist")
        for name, digits, number in (("lsp", 4, num_train + num_test), ("lspet", 5, num_extended)):
            (root / name / "images").mkdir(parents=True)
            table = np.zeros((number, 14, 3))
            for i in range(number):
                joints = stick_figure(rng, LSP.joints, (60, 65), 80)
                draw_figure(root / name / "images" / f"im{i + 1:0{digits}}.jpg", joints, LSP.limbs, (120, 130))
                table[i, :, :2] = joints + 0.5
            if name == "lsp":
                table[1::2, wrist, 2] = 1
                table = table.transpose(2, 1, 0)
            else:
                table[:, :, 2] = 1
                table[1::2, wrist] = 0
                table = table.transpose(1, 2, 0)
            scipy.io.savemat(root / name / "joints.mat", {"joints": table})
        return root / "lsp", root / "lspet"

    return write
