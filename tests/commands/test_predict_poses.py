"""`bnnlight fit` and `predict` of poses, through the command line."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from bnnlight.data.keypoints.people import draw_person
from bnnlight.imaging.pose_pictures import draw_pose
from bnnlight.imaging.skeletons import MPII

TINY = (
    *("--data.num_train=8", "--data.num_val=4", "--data.num_test=4", "--data.batch_size=4", "--data.num_workers=0"),
    *("--model.backbone.features=16", "--model.backbone.depth=1", "--trainer.max_epochs=1"),
)


@pytest.fixture(scope="module")
def people_run(tmp_path_factory, configs):
    """The directory of one short run on drawn people, offline W&B and all, made by the real command."""
    folder = tmp_path_factory.mktemp("people")
    command = [sys.executable, "-m", "bnnlight", "fit", "--config", str(configs / "hg_people.yaml"), *TINY]
    command += ["--trainer.accelerator=cpu", f"--run_dir={folder / 'run'}"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT"))} | {"HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


@pytest.fixture
def photos(tmp_path):
    """Two drawn people as files: one as it is, one stored lying on its side and marked so, as cameras do."""
    folder = tmp_path / "photos"
    folder.mkdir()
    upright = Image.fromarray(draw_person(0, 0).image[:, :160])
    upright.save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise to be seen upright
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "b.png", exif=exif)
    return folder


def test_run_leaves_results_and_pictures(people_run):
    run_dir, out = people_run
    results = json.loads((run_dir / "results.json").read_text())["results"]
    for name in ("test/pckh", "test/pckh_mean", "test/pckh01", "test/pck", "test/pckh_wrist", "best val/pckh"):
        assert 0 <= results[name] <= 1
        assert f"{100 * results[name]:.2f} %" in out
    assert (run_dir / "curves.png").is_file()
    for name in ("val-0000002.png", "test.png"):
        assert Image.open(run_dir / "pictures" / name).mode == "RGB"
    # and in the W&B run
    assert list(run_dir.glob("wandb/offline-run-*/files/media/images/test/pictures*.png"))


def test_pictures_and_joints_in_pixels_of_the_upright_photograph(bnnlight, people_run, photos, tmp_path):
    run_dir, _ = people_run
    code, _, err = bnnlight(
        *("predict", photos, "--ckpt_path", run_dir / "checkpoints/best.ckpt", "--output", tmp_path / "out")
    )
    assert code == 0, err
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    first, second = content["images"]
    (person,), (turned,) = first["people"], second["people"]
    assert [entry["joint"] for entry in person["joints"]] == list(MPII.joints)
    for entry in person["joints"]:
        assert 0 <= entry["confidence"] <= 1
        # the box is the square round the picture of 160×192
        assert -16.5 <= entry["x"] <= 175.5
        assert -0.5 <= entry["y"] <= 191.5
    # the same person, turned upright
    assert turned["joints"] == person["joints"]
    for entry in (first, second):
        assert Image.open(tmp_path / "out" / entry["picture"]).size == (160, 192)


def test_joints_below_the_confidence_are_in_the_record_but_not_in_the_picture(bnnlight, people_run, photos, tmp_path):
    run_dir, _ = people_run
    options = ("--ckpt_path", run_dir / "checkpoints/best.ckpt", "--output", tmp_path / "out")
    code, _, err = bnnlight("predict", photos / "a.png", *options, "--min_confidence", 1)
    assert code == 0, err
    (entry,) = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert len(entry["people"][0]["joints"]) == 16
    drawn = np.asarray(Image.open(tmp_path / "out" / entry["picture"]))
    np.testing.assert_array_equal(drawn, np.asarray(Image.open(photos / "a.png")))


def test_config_for_another_number_of_joints(bnnlight_error, configs, quick, tmp_path):
    code, line = bnnlight_error(
        *("fit", "--config", configs / "hg_people.yaml", *TINY, *quick, "--model.backbone.num_joints=14"),
        f"--run_dir={tmp_path / 'run'}",
    )
    assert code == 2
    assert "set model.backbone.num_joints to 16" in line


def test_skeleton_is_drawn_in_colours_of_the_sides():
    joints = np.array(draw_person(0, 1).person.joints) * 3
    drawn = draw_pose(np.zeros((576, 576, 3), np.uint8), joints, np.ones(16, bool), MPII)
    for name, channel in (("left wrist", 2), ("right ankle", 0), ("thorax", 1)):
        x, y = joints[MPII.joints.index(name)].round().astype(int)
        # blue, red and green stand out on the left, the right and in the middle
        assert drawn[y, x].argmax() == channel, name


def test_joint_far_outside_or_unknown_does_no_harm():
    joints = np.full((16, 2), 20.0)
    joints[0], joints[1] = (1e9, -1e9), (np.nan, 3)
    image = np.zeros((40, 40, 3), np.uint8)
    drawn = draw_pose(image, joints, np.ones(16, bool), MPII, np.ones(16, bool))
    assert drawn.any()
    assert not image.any()
    nothing = draw_pose(image, joints, np.zeros(16, bool), MPII)
    assert not nothing.any()


def test_drawing_is_rgb():
    # OpenCV's own order is BGR: of a picture written by it and read by Pillow, red and blue would be exchanged
    joints = np.full((16, 2), 10.0)
    only = np.zeros(16, bool)
    only[MPII.joints.index("right wrist")] = True
    drawn = draw_pose(np.zeros((20, 20, 3), np.uint8), joints, only, MPII)
    assert drawn[10, 10, 0] > drawn[10, 10, 2]
    assert cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY).any()
