"""MPII files that are missing, damaged or wrong: one line that names the file and entry."""

import shutil

import pytest
import scipy.io
from fixtures.mpii_module import SPLITS, edit, heads_of, module, ready


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
    monkeypatch.setattr("bnnlight.data.keypoints.mpii.check_inside", lambda *args: calls.append(args))
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
@pytest.mark.parametrize("split", SPLITS)
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


@pytest.mark.parametrize("split", SPLITS)
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
        (lambda p: p["joints"].__setitem__(3, ["a", 5]), ["joints holds something that is not a number"]),
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
        ("[" * 100000, ["nested too deeply"]),
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
