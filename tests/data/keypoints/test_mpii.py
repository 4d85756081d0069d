"""MPII from its JSON lists: people, boxes and heads."""

import json
import math

import numpy as np
import pytest
import scipy.io
import torch
from fixtures.mpii_module import SPLITS, edit, heads_of, module, ready
from jsonargparse import ArgumentParser
from lightning import LightningDataModule

from bnnlight.data.keypoints.transforms import PoseAugmentation


def to_padded(people):
    for person in people:
        person["center"][1] += 15 * person["scale"]
        person["scale"] *= 1.25


def test_sets_and_attributes(write_mpii):
    data = ready(write_mpii())
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (6, 6, 6)
    assert (data.num_channels, data.image_size, len(data.skeleton.joints)) == (3, 64, 16)
    assert data.test_set[3]["truth"].equal(data.val_set[3]["truth"])
    assert data.train_set.transform is data.train_transform
    assert data.val_set.transform is data.eval_transform


def test_coordinates_count_from_0(write_mpii):
    root = write_mpii()
    data = ready(root)
    for split, items in (("train", data.train_set.items), ("valid", data.val_set.items)):
        for index, entry in enumerate(json.loads((root / "annot" / f"{split}.json").read_text())):
            person = items[index].person
            for joint, (x, y) in enumerate(entry["joints"]):
                assert person.annotated[joint] == (entry["joints_vis"][joint] == 1)
                if person.annotated[joint]:
                    assert person.joints[joint].tolist() == pytest.approx([x - 1, y - 1], abs=1e-4)
            # 81 - 1; 55 - 1 + 15 · 0.42; 0.42 · 200 · 1.25
            assert person.center.tolist() == pytest.approx([80, 60.3], abs=1e-4)
            assert person.side_px == pytest.approx(105, abs=1e-4)


def test_half_of_the_people_lack_the_left_wrist(write_mpii):
    sample = ready(write_mpii()).val_set[1]
    assert sample["annotated"].tolist() == [True] * 15 + [False]
    assert sample["weight"].tolist() == [1] * 15 + [0]


@pytest.mark.parametrize("nowhere", [[-1, -1], [0, 0], [-5000, 70], [float("nan"), 5]])
def test_an_unannotated_joint_may_be_anywhere(write_mpii, nowhere):
    root = write_mpii()
    edit(root, lambda people: people[1]["joints"].__setitem__(15, nowhere))
    sample = ready(root).val_set[1]
    assert not sample["annotated"][15]
    assert sample["truth"][15].tolist() == [0, 0]


def test_minus_one_is_no_joint_whatever_its_visibility(write_mpii):
    root = write_mpii()
    edit(root, lambda people: people[1]["joints_vis"].__setitem__(15, 1))
    assert not ready(root).val_set[1]["annotated"][15]


def test_head_size_is_six_tenths_of_the_diagonal(write_mpii):
    data = ready(write_mpii())
    assert data.val_set[0]["head_px"].item() == pytest.approx(0.6 * math.hypot(12, 16))
    assert data.train_set[0]["head_px"].isnan()
    assert ready(write_mpii(data.root / "b"), head_boxes=None).val_set[0]["head_px"].isnan()


def test_both_forms_of_the_lists_give_the_same_boxes(write_mpii):
    root = write_mpii()
    raw = ready(root).val_set.items.people
    edit(root, to_padded)
    padded = ready(root).val_set.items.people
    np.testing.assert_allclose(padded.center, raw.center, atol=1e-4)
    np.testing.assert_allclose(padded.side_px, raw.side_px, atol=1e-4)


def test_the_form_can_be_forced(write_mpii):
    root = write_mpii()
    # as read: 0.42 · 200 px, and not moved
    people = ready(root, boxes="padded").val_set.items.people
    assert people.side_px[0] == pytest.approx(84)
    assert people.center[0].tolist() == pytest.approx([80, 54])
    edit(root, to_padded)
    # down a second time from 61.3 - 1, by 15 · 0.525
    people = ready(root, boxes="raw").val_set.items.people
    assert people.side_px[0] == pytest.approx(131.25)
    assert people.center[0].tolist() == pytest.approx([80, 68.175])


def test_the_form_is_decided_by_nearly_all_and_told(write_mpii, told):
    root = write_mpii(num_people=40)
    for split in SPLITS:
        edit(root, lambda people: people[0]["center"].__setitem__(1, 55.4), split)
    edit(root, to_padded, "train")
    data = ready(root)
    assert data.val_set.items.people.side_px[1] == pytest.approx(105)
    assert data.train_set.items.people.side_px[1] == pytest.approx(105)
    for form in ("valid.json: boxes read as raw (98% of", "train.json: boxes read as padded (0% of"):
        assert sum(form in line for line in told) == 1


@pytest.mark.parametrize("moved", [55.4, 50.0])
@pytest.mark.parametrize("num_people", [3, 5])
@pytest.mark.parametrize("form", ["raw", "padded"])
def test_a_centre_that_was_corrected_by_hand_does_not_change_the_form(write_mpii, form, num_people, moved):
    root = write_mpii(num_people=num_people)
    if form == "padded":
        edit(root, to_padded)
    edit(root, lambda people: people[1]["center"].__setitem__(1, moved))
    people, forced = ready(root).val_set.items.people, ready(root, boxes=form).val_set.items.people
    assert np.array_equal(people.center, forced.center)
    # 0.42 · 200 · 1.25 in both forms
    assert people.side_px == pytest.approx(105)


@pytest.mark.parametrize(
    ("y", "scales"),
    # none fits either; all fit both, since 15 · 0.4 = 12 · 0.5 = 6; two of each form; one that tells, beside others
    [
        ([55.37] * 6, 0.42),
        ([55] * 6, 0.5),
        ([55, 55, 61.3, 61.3] + [55.37] * 2, [0.42, 0.42, 0.525, 0.525, 0.42, 0.42]),
    ],
)
def test_a_form_that_cannot_be_told_is_asked_for(write_mpii, check_one_line, y, scales):
    root = write_mpii()
    rows = list(zip(y, np.broadcast_to(scales, 6).tolist(), strict=True))

    def change(people):
        for person, (height, scale) in zip(people, rows, strict=True):
            person.update(center=[81, height], scale=scale)

    edit(root, change)
    with pytest.raises(ValueError) as error:
        ready(root)
    check_one_line(error, root / "annot" / "valid.json", "cannot be told", "--data.boxes raw", "--data.boxes padded")
    assert ready(root, boxes="raw").val_set.items.people.side_px[0] == pytest.approx(250 * rows[0][1])


def test_the_person_fills_the_crop(write_mpii):
    sample = ready(write_mpii()).val_set[0]
    # 64 px for the box of 105 px, whose middle comes to the middle of the pixels 0 to 63
    expected = 64 / 105 * (sample["truth"] - torch.tensor([80.0, 60.3])) + 31.5
    torch.testing.assert_close(sample["joints"], expected, atol=1e-3, rtol=0)
    # bone-coloured at the pelvis, green at the corner
    red = sample["image"][0] * 0.229 + 0.485
    x, y = sample["joints"][6].round().int().tolist()
    assert red[y, x].item() == pytest.approx(230 / 255, abs=0.08)
    assert red[2, 2].item() == pytest.approx(90 / 255, abs=0.08)


def test_a_large_person_is_read_no_finer_than_needed(write_mpii):
    root = write_mpii()
    data = ready(root, image_size=16)
    # a box of 105 px holds 16 px six times; the smallest augmented one, of 79 px, four times
    assert (data.train_set.items[0].shrink, data.val_set.items[0].shrink) == (4, 4)
    data = ready(root, image_size=25)
    assert (data.train_set.items[0].shrink, data.val_set.items[0].shrink) == (2, 4)
    data = ready(root, image_size=25, augmentation=None)
    assert data.train_set.items[0].shrink == 4
    assert data.train_set.items[0].image.shape == (30, 40, 3)


def test_testing_needs_no_training_list(write_mpii):
    root = write_mpii()
    (root / "annot" / "train.json").unlink()
    for stage in ("test", "validate"):
        assert len(ready(root, stage).val_set) == 6
    with pytest.raises(FileNotFoundError):
        ready(root, "fit")


def test_setup_needs_no_prepare_data(write_mpii):
    data = module(write_mpii())
    data.setup("fit")
    assert len(data.train_set) == 6


def test_home_is_expanded_and_other_places_are_found(write_mpii, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    root = write_mpii()
    (root / "images").rename(root / "pictures")
    (root / "annot").rename(root / "lists")
    names = {"train_annotations": "lists/train.json", "val_annotations": "lists/valid.json"}
    data = ready("~/mpii", images="pictures", head_boxes="lists/gt_valid.mat", **names)
    assert data.train_set[0]["image"].shape == (3, 64, 64)


def test_pictures_may_lie_in_folders_below(write_mpii):
    root = write_mpii()
    (root / "images" / "day1").mkdir()
    (root / "images" / "valid003.jpg").rename(root / "images" / "day1" / "a.jpg")
    edit(root, lambda people: people[3].update(image="day1/a.jpg"))
    assert ready(root).val_set[3]["image"].shape == (3, 64, 64)


@pytest.mark.parametrize("order", [[5, 3, 1, 0, 2, 4], [4, 2]])
def test_head_boxes_are_matched_by_joints(write_mpii, order):
    root = write_mpii()
    heads = heads_of(root)
    heads["headboxes_src"][1] = heads["headboxes_src"][0] + [[3], [4]] * np.arange(1, 7)
    scipy.io.savemat(root / "annot" / "gt_valid.mat", heads)
    edit(root, lambda people: [people[i] for i in order])
    data = ready(root, "test")
    assert [data.val_set[i]["head_px"].item() for i in range(len(order))] == pytest.approx([3 * (i + 1) for i in order])


def test_built_from_the_command_line(write_mpii):
    def build(*args):
        parser = ArgumentParser()
        parser.add_subclass_arguments(LightningDataModule, "data")
        config = parser.parse_args(["--data=bnnlight.data.MPIIDataModule", f"--data.root={write_mpii_root}", *args])
        again = parser.parse_string(parser.dump(config, skip_unset=False))
        built = parser.instantiate(config).data
        assert parser.instantiate(again).data.train_transform.augmentation == built.train_transform.augmentation
        return built

    write_mpii_root = write_mpii()
    usual = build().train_transform.augmentation
    assert usual == PoseAugmentation()
    changed = build("--data.augmentation.rotation_deg=10").train_transform.augmentation
    assert (changed.rotation_deg, changed.scale, changed.flip) == (10, usual.scale, usual.flip)
    assert build("--data.augmentation=null").train_transform.augmentation is None
    assert build("--data.head_boxes=null", "--data.boxes=raw").head_file is None


def test_loader_processes_give_batches(write_mpii):
    data = ready(write_mpii(), num_workers=1, batch_size=3)
    batch = next(iter(data.train_dataloader()))
    assert (batch["image"].shape, batch["joints"].shape) == ((3, 3, 64, 64), (3, 16, 2))
