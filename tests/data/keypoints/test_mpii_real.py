"""MPII's own lists and pictures, where they are there."""

import shutil

import numpy as np
import pytest
import scipy.io
import torch
from fixtures.mpii_module import module, ready
from PIL import Image

from bnnlight.data.keypoints.mpii_heads import with_heads
from bnnlight.data.keypoints.mpii_json import read_json


def real(real_data, **options):
    return ready(real_data("mpii_val"), "test", val_annotations="annot/sample5.json", **options)


def test_real_lists_in_both_forms_give_the_same_people(real_data):
    raw = real(real_data, image_size=256).val_set.items.people
    data = module(real_data("mpii_val"))
    with pytest.raises(FileNotFoundError):
        data.setup("test")  # only five of the pictures are there
    padded = read_json(real_data("mpii_val") / "annot" / "valid.json", "auto", "")
    rows = [padded.images.tolist().index(name) for name in raw.images]
    np.testing.assert_allclose(padded.center[rows], raw.center, atol=1e-3)
    np.testing.assert_allclose(padded.side_px[rows], raw.side_px, atol=1e-3)
    np.testing.assert_array_equal(padded.joints[rows], raw.joints)
    # the first person's box by hand: 4.718488 · 250; (966 - 1, 340 - 1 + 15 · 4.718488)
    assert raw.side_px[0] == pytest.approx(1179.622, abs=1e-3)
    assert raw.center[0].tolist() == pytest.approx([965, 409.777], abs=1e-3)


def test_real_head_sizes(real_data):
    heads = scipy.io.loadmat(real_data("mpii_val") / "annot" / "gt_valid.mat")["headboxes_src"]
    # the five are the first rows of the full file
    expected = 0.6 * np.hypot(*(heads[1] - heads[0])[:, :5])
    people = real(real_data).val_set.items.people
    np.testing.assert_allclose(people.head_px, expected, rtol=1e-5)


def test_all_real_people_have_the_head_of_their_row(real_data):
    root = real_data("mpii_val") / "annot"
    people = read_json(root / "valid.json", "auto", "")
    heads = scipy.io.loadmat(root / "gt_valid.mat")["headboxes_src"]
    expected = 0.6 * np.hypot(*(heads[1] - heads[0]))
    np.testing.assert_allclose(with_heads(people, root / "gt_valid.mat", "").head_px, expected, rtol=1e-5)
    order = np.random.default_rng(0).permutation(len(people))[:200]
    shuffled = with_heads(people.take(order), root / "gt_valid.mat", "")
    np.testing.assert_allclose(shuffled.head_px, expected[order], rtol=1e-5)


def test_real_joints_survive_augmentation_and_heat_maps(real_data, check_samples):
    data = real(real_data, image_size=256)
    view = data.augmented(data.val_set.items)
    torch.manual_seed(0)
    assert check_samples(view[index] for _ in range(20) for index in range(5)) > 1000


def test_pictures_in_another_size_are_found_out(real_data, tmp_path, check_one_line):
    root = tmp_path / "mpii"
    shutil.copytree(real_data("mpii_val") / "annot", root / "annot")
    (root / "images").mkdir()
    for file in (real_data("mpii_val") / "images").iterdir():
        image = Image.open(file)
        image.resize((image.width // 3, image.height // 3)).save(root / "images" / file.name)
    with pytest.raises(ValueError) as error:
        module(root, val_annotations="annot/sample5.json").prepare_data()
    check_one_line(error, root / "annot" / "sample5.json", "pictures in their original size")
