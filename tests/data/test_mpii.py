import json
import math
import shutil

import numpy as np
import pytest
import scipy.io
import torch
from jsonargparse import ArgumentParser
from lightning import LightningDataModule
from PIL import Image

from bnnlight.data import MPIIDataModule
from bnnlight.data.mpii_heads import with_heads
from bnnlight.data.mpii_json import read_json
from bnnlight.data.pose_transforms import PoseAugmentation

ALL = "train", "valid"


def module(root, **options):
    return MPIIDataModule(str(root), **{"image_size": 64, "num_workers": 0, **options})


def ready(root, stage=None, **options):
    data = module(root, **options)
    data.prepare_data()
    data.setup(stage)
    return data


def edit(root, change, split="valid"):
    """Let `change` work on the list of people in a JSON file; what it returns, if anything, replaces the list."""
    file = root / "annot" / f"{split}.json"
    people = json.loads(file.read_text())
    people = change(people) or people
    file.write_text(json.dumps(people))
    return people


def heads_of(root):
    content = scipy.io.loadmat(root / "annot" / "gt_valid.mat")
    return {name: array for name, array in content.items() if not name.startswith("__")}


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
    for split in ALL:
        edit(root, lambda people: people[0]["center"].__setitem__(1, 55.4), split)
    edit(root, to_padded, "train")
    data = ready(root)
    assert data.val_set.items.people.side_px[1] == pytest.approx(105)
    assert data.train_set.items.people.side_px[1] == pytest.approx(105)
    for form in ("valid.json: boxes read as raw (98% of", "train.json: boxes read as padded (0% of"):
        assert sum(form in line for line in told) == 1


@pytest.mark.parametrize(("y", "scale"), [(55.37, 0.42), (55, 0.5)])
def test_centres_that_fit_no_form_or_both_are_read_as_raw(write_mpii, y, scale):
    root = write_mpii()
    # 15 · 0.4 = 12 · 0.5 = 6: whole numbers stay whole
    edit(root, lambda people: [person.update(center=[81, y], scale=scale) for person in people] and None)
    assert ready(root).val_set.items.people.side_px[0] == pytest.approx(250 * scale)


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


def test_joints_a_little_outside_are_worth_a_warning(write_mpii, recwarn):
    root = write_mpii()
    edit(root, lambda people: people[2]["joints"].__setitem__(9, [80.0, -35.0]), "train")
    edit(root, lambda people: people[4]["joints"].__setitem__(0, [162.0, 60.0]), "train")
    data = ready(root)
    assert [str(warning.message) for warning in recwarn if "outside" in str(warning.message)] == [
        f"{root / 'annot' / 'train.json'}: entry 3 of 6 (train002.jpg): head top at (80.0, -35.0) lies outside the "
        "picture of 160×120 px (and 1 more); joints outside are not trained on"
    ]
    assert data.plain(data.train_set.items)[2]["weight"][9] == 0


def test_joints_are_compared_with_the_pictures_once(write_mpii, monkeypatch):
    calls = []
    monkeypatch.setattr("bnnlight.data.mpii.check_inside", lambda *args: calls.append(args))
    data = ready(write_mpii())
    data.prepare_data()
    assert len(calls) == 2


@pytest.mark.parametrize("place", [[160.9, 60], [0.1, 60], [80, 120.9], [80, 0.1]])
def test_rounding_is_no_matter_for_a_warning(write_mpii, recwarn, place):
    root = write_mpii()
    edit(root, lambda people: people[2]["joints"].__setitem__(9, place), "train")
    ready(root)
    assert len(recwarn) == 0


@pytest.mark.parametrize("place", [[202.5, 60], [-40.5, 60], [80, 162.5], [80, -40.5]])
@pytest.mark.parametrize("split", ALL)
def test_joints_far_outside_are_of_another_picture(write_mpii, check_one_line, split, place):
    root = write_mpii()
    edit(root, lambda people: people[2]["joints"].__setitem__(9, place), split)
    with pytest.raises(ValueError) as error:
        module(root, head_boxes=None).prepare_data()
    file = root / "annot" / f"{split}.json"
    check_one_line(error, f"{file}: entry 3 of 6 ({split}002.jpg): head top at ({place[0]:.1f}, ", "160×120 px")


def test_a_damaged_picture_is_found_before_training(write_mpii, check_one_line):
    root = write_mpii()
    (root / "images" / "train004.jpg").write_text("not an image")
    with pytest.raises(OSError) as error:
        module(root).prepare_data()
    check_one_line(error, f"cannot read image {root / 'images' / 'train004.jpg'}")


@pytest.mark.parametrize("split", ALL)
def test_missing_files(write_mpii, tmp_path, check_one_line, split):
    root = write_mpii()
    (root / "images" / f"{split}004.jpg").unlink()
    (root / "images" / f"{split}005.jpg").unlink()
    with pytest.raises(FileNotFoundError) as error:
        module(root).setup("fit")
    entry = f"{root / 'annot' / split}.json: entry 5 of 6 ({split}004.jpg)"
    check_one_line(error, entry, root / "images", "(and 1 more); ", "--data.root")
    shutil.rmtree(root / "images")
    with pytest.raises(FileNotFoundError) as error:
        module(root).setup("fit")
    check_one_line(error, f"folder {root / 'images'};", "--data.images")
    file = root / "annot" / f"{split}.json"
    file.unlink()
    with pytest.raises(FileNotFoundError) as error:
        module(root).setup("fit")
    check_one_line(error, file if split == "valid" else root / "images")
    with pytest.raises(FileNotFoundError) as error:
        module(tmp_path / "gone").prepare_data()
    check_one_line(error, tmp_path / "gone" / "annot" / "valid.json", "--data.root")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda p: p.pop("center"), ["entry 2 of 6 (valid001.jpg)", "lacks center"]),
        (lambda p: (p.pop("scale"), p.pop("image")), ["entry 2 of 6:", "lacks image, scale"]),
        (lambda p: p.update(joints=p["joints"][:14]), ["entry 2 of 6 (valid001.jpg)", "14×2", "MPII has 16×2"]),
        (lambda p: p.update(joints_vis=[1] * 14), ["joints_vis holds 14 numbers where MPII has 16"]),
        (lambda p: p["joints"][3].append(1), ["entry 2 of 6 (valid001.jpg)", "joints", "unequal length"]),
        (lambda p: p["joints"].__setitem__(3, [float("nan"), 5]), ["left hip is at (nan, 4.0)"]),
        (lambda p: p["joints"].__setitem__(3, [7, float("inf")]), ["left hip is at (6.0, inf)"]),
        (lambda p: p["joints"].__setitem__(3, ["a", 5]), ["joints holds something that is no number"]),
        (lambda p: p.update(scale=0), ["entry 2 of 6 (valid001.jpg)", "scale is 0,"]),
        (lambda p: p.update(scale=-1.5), ["scale is -1.5,"]),
        (lambda p: p.update(scale=float("nan")), ["scale is nan,"]),
        (lambda p: p.update(scale=None), ["scale is None,"]),
        (lambda p: p.update(scale=[1, 2]), ["scale holds 2 numbers where MPII has one"]),
        (lambda p: p.update(center=[float("nan"), 4]), ["center is [nan, 4]"]),
        (lambda p: p.update(center=[4]), ["center holds 1 numbers where MPII has 2"]),
        (lambda p: p.update(image=7), ["image is 7"]),
    ],
)
def test_wrong_entries(write_mpii, check_one_line, change, parts):
    root = write_mpii()
    edit(root, lambda people: (change(people[1]), None)[1])
    with pytest.raises(ValueError) as error:
        module(root).setup("test")
    check_one_line(error, root / "annot" / "valid.json", "entry 2 of 6", "correct the entry", *parts)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('[{"image": "a.jpg", "cen', ["not valid JSON", "cut off"]),
        ("", ["not valid JSON"]),
        (b"\xff\xd8\xff\xe0", ["not valid JSON"]),
        ("[]", ["an empty list"]),
        ('{"images": [], "annotations": []}', ["a dict", "image, center, scale, joints, joints_vis"]),
        ("[[1, 2]]", ["entry 1 of 1: is a list"]),
    ],
)
def test_files_that_are_no_list_of_people(write_mpii, check_one_line, content, parts):
    root = write_mpii()
    file = root / "annot" / "valid.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        module(root).setup("test")
    check_one_line(error, file, *parts)


def test_head_box_files_that_do_not_fit(write_mpii, check_one_line):
    root = write_mpii()
    file = root / "annot" / "gt_valid.mat"
    good = heads_of(root)

    def fails(error_type, *parts, **changes):
        if changes:
            scipy.io.savemat(file, {k: v for k, v in {**good, **changes}.items() if v is not None})
        with pytest.raises(error_type) as error:
            module(root).setup("test")
        check_one_line(error, file, "--data.head_boxes null", *parts)

    moved = good["pos_gt_src"].copy()
    moved[4, 0, 3] += 0.7
    entry = f"{root / 'annot' / 'valid.json'}: entry 4 of 6 (valid003.jpg)"
    fails(ValueError, entry, "no row", "joints; ", pos_gt_src=moved)
    fails(ValueError, "jnt_missing", "pos_gt_src, headboxes_src", jnt_missing=None)
    fails(ValueError, "pos_gt_src is of shape (14, 2, 6)", "(16, 2, 6)", pos_gt_src=good["pos_gt_src"][:14])
    fails(ValueError, "headboxes_src is of shape (2, 2, 5)", headboxes_src=good["headboxes_src"][..., :5])
    fails(ValueError, "row 1 of 6", "without size", headboxes_src=0 * good["headboxes_src"])
    file.write_bytes(b"not a file of MATLAB")
    fails(ValueError, "cannot be read")
    file.unlink()
    fails(FileNotFoundError, "looked for")


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
