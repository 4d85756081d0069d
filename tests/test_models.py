"""The models that come with the package: found by name, small, told of in full, and as good as they say."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from bnnlight.data.classes.vision import CIFAR10_CLASSES
from bnnlight.data.keypoints.people import draw_person
from bnnlight.deploy import Runtime
from bnnlight.deploy.shipped import shipped_models
from bnnlight.imaging.skeletons import LSP

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.name for path in (ROOT / "models").iterdir() if path.is_dir())


def test_there_is_one_of_each_task_and_each_is_found_by_its_name():
    assert {name: path.resolve() for name, path in shipped_models().items()} == {n: ROOT / "models" / n for n in NAMES}
    assert {Runtime(name).manifest.task for name in NAMES} == {"classification", "pose"}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_tells_where_it_comes_from(name):
    folder = ROOT / "models" / name
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000
    manifest, card = Runtime(name).manifest, (folder / "README.md").read_text()
    # anybody can repeat it: a commit without changes, and a config that is there
    assert re.fullmatch("[0-9a-f]{40}", manifest.origin["commit"]) and manifest.origin["commit"] in card
    words = shlex.split(manifest.origin["command"])
    config = words[words.index("--config") + 1]
    assert (ROOT / config).is_file() and config in (ROOT / "models/README.md").read_text()
    assert not any(word.startswith("/") for word in re.split("[ =]", manifest.origin["command"]))
    metric = "test/pck" if manifest.task == "pose" else "test/acc1"
    assert f"| `{metric}` | {100 * manifest.metrics[metric]:.2f} % |" in card
    assert f"{100 * manifest.metrics[metric]:.1f} %" in (ROOT / "models/README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_predict_takes_its_name(bnnlight, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw_person(0, 1).image).save("person.png")
    code, _, err = bnnlight("predict", "person.png", "--model", name)
    assert code == 0, err
    (found,) = json.loads(Path("predictions/predictions.json").read_text())["images"]
    if "people" in found:
        assert [joint["joint"] for joint in found["people"][0]["joints"]] == list(LSP.joints)
    else:
        assert len(found["classes"]) == 5 and {entry["class"] for entry in found["classes"]} <= {*CIFAR10_CLASSES}
        assert 0.5 < sum(entry["probability"] for entry in found["classes"]) <= 1.0001


def test_a_folder_of_that_name_goes_before(bnnlight_error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(NAMES[0]).mkdir()
    Image.new("RGB", (8, 8)).save("a.png")
    _, line = bnnlight_error("predict", "a.png", "--model", NAMES[0])
    assert f"no shipped model in {NAMES[0]}" in line


def test_another_name_is_answered_with_those_there_are(bnnlight_error, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, line = bnnlight_error("predict", tmp_path / "a.png", "--model", "imagenet")
    assert code == 2 and f"no such model: imagenet; those that come with bnnlight: {', '.join(NAMES)}" in line


def test_wheel_and_image_have_them():
    def read(name):
        return (ROOT / name).read_text()

    assert '[tool.hatch.build.targets.wheel.force-include]\n"models" = "bnnlight/models"' in read("pyproject.toml")
    assert "COPY models /src/models" in read("Dockerfile")
    assert "!models" in read(".dockerignore").splitlines()


def test_classes_are_as_right_as_the_card_says(real_data):
    files = sorted((real_data("cifar10_jpeg") / "test").glob("*/*.jpg"))[::20]
    assert len(files) == 500
    runtime = Runtime("cifar10")
    found = runtime.predict([Image.open(file) for file in files], top=1)
    right = np.mean([f["classes"][0]["class"] == file.parent.name for f, file in zip(found, files, strict=True)])
    told = runtime.manifest.metrics["test/acc1"]
    # three standard errors
    assert abs(right - told) < 3 * np.sqrt(told * (1 - told) / len(files))


def test_joints_are_as_right_as_the_card_says(real_data):
    """PCK@0.2 of every tenth of LSP's test pictures, cut out and counted here by hand."""
    root = real_data("lsp")
    joints = scipy.io.loadmat(root / "joints.mat")["joints"].transpose(2, 1, 0)[:, :, :2]
    pictures, truths = [], []
    for number in range(1001, 2001, 10):
        x = joints[number - 1]
        middle, side = (x.min(0) + x.max(0)) / 2, 1.5 * (x.max(0) - x.min(0)).max()
        left, top = np.round(middle - side / 2).astype(int)
        picture = Image.open(root / f"images/im{number:04}.jpg").convert("RGB")
        pictures.append(picture.crop((left, top, left + round(side), top + round(side))))
        truths.append(x - (left, top))
    runtime = Runtime("lsp")
    found = [[(joint["x"], joint["y"]) for joint in f["joints"]] for f in runtime.predict(pictures)]
    truths = np.array(truths)
    left_shoulder, right_hip = 9, 2
    torso = np.linalg.norm(truths[:, left_shoulder] - truths[:, right_hip], axis=-1)
    right = (np.linalg.norm(np.array(found) - truths, axis=-1) <= 0.2 * torso[:, None]).mean(1)
    # three standard errors; joints of one picture are not independent
    assert abs(right.mean() - runtime.manifest.metrics["test/pck"]) < 3 * right.std() / np.sqrt(len(right)) + 0.01
