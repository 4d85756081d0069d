"""Joints, sides, limbs and sigmas of a COCO file's category, and the options about them."""

import json

import numpy as np
import pytest
from fixtures.coco_files import JOINTS, coco_content, module, ready, write_coco

from bnnlight.data.keypoints.coco_files.skeleton import COCO_JOINTS, COCO_SIGMAS
from bnnlight.imaging.joint_sides import flip_pairs_by_name, side_and_rest, without_side


def skeleton_of(root, joints=JOINTS, skeleton=None, **options):
    content = coco_content(joints=joints)
    content["categories"][0]["skeleton"] = skeleton
    return ready(write_coco(root, content), "validate", **options).skeleton


@pytest.mark.parametrize(
    ("left", "right", "rest"),
    [
        ("left_eye", "right_eye", "eye"),
        ("Left Shoulder", "Right Shoulder", "shoulder"),
        ("L_F_Elbow", "R_F_Elbow", "f_elbow"),
        ("l_wrist", "r_wrist", "wrist"),
        ("wrist_l", "wrist_r", "wrist"),
        ("hip.L", "hip.R", "hip"),
        ("LShoulder", "RShoulder", "shoulder"),
        ("leftKnee", "rightKnee", "knee"),
        ("LEFT_EAR", "RIGHT_EAR", "ear"),
        ("forelegL1", "forelegR1", "foreleg_1"),
        ("antbaseL", "antbaseR", "antbase"),
        ("L1", "R1", "1"),
        ("lefteye", "righteye", "eye"),
        ("lwrist", "rwrist", "wrist"),
        ("outer corner of the left eye", "outer corner of the right eye", "outer_corner_of_the_eye"),
    ],
)
def test_sides_by_name(left, right, rest):
    # in whatever order, and with others between
    assert flip_pairs_by_name([right, "nose", left, "upper lip", "Nearknee", "Offknee"]) == ((2, 0),)
    assert without_side(left) == without_side(right) == rest


def test_what_has_no_side():
    # hands have fingers, a horse's near side is the one toward the camera, and a lip is not a left ip
    names = ["wrist", "thumb1", "thumb2", "Nearknee", "Offknee", "lip", "leg", "rear", "1", "2", "keypoint_3"]
    assert flip_pairs_by_name(names) == ()
    # two that could be the other side of one
    assert flip_pairs_by_name(["left eye", "right eye", "Right_Eye"]) == ()
    assert side_and_rest("left_shoulder") == side_and_rest("Left Shoulder") == ("left", "shoulder")
    assert side_and_rest("Head top") == ("", "head_top")


def test_mirrored_and_sides(tmp_path):
    made = skeleton_of(tmp_path, ["R_eye", "nose", "L_eye", "tail"])
    assert made.flip_pairs == ((2, 0),)
    assert made.mirrored == (2, 1, 0, 3)
    assert made.sides == ("right", "", "left", "")
    assert made.torso == ()


def test_a_torso_where_its_ends_are(tmp_path):
    joints = ["Right Hip", "Left Hip", "Right Shoulder", "Left Shoulder"]
    assert skeleton_of(tmp_path, joints).torso == (3, 0)


def test_flip_pairs_by_option(tmp_path):
    joints = ["a", "b", "c", "left d", "right d"]
    # left comes first, by name or by index; names do not count besides
    assert skeleton_of(tmp_path, joints, flip_pairs=[["c", 0]]).flip_pairs == ((2, 0),)
    assert skeleton_of(tmp_path, joints, flip_pairs=[]).mirrored == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"flip_pairs": [["nose", "tail"]]}, ("data.flip_pairs", "'tail'", "left_eye")),
        ({"flip_pairs": [[0, 5]]}, ("data.flip_pairs", "joint 5", "0 to 4")),
        ({"flip_pairs": [[0, 1, 2]]}, ("data.flip_pairs", "[0, 1, 2]", "pairs")),
        ({"flip_pairs": [[0, 1], [1, 2]]}, ("data.flip_pairs", "left_eye twice")),
        ({"sigmas": [0.1] * 4}, ("data.sigmas", "4 numbers", "5 joints")),
        ({"sigmas": [0.1] * 4 + [0]}, ("data.sigmas", "above 0")),
    ],
)
def test_options_that_do_not_fit(tmp_path, check_one_line, options, parts):
    with pytest.raises(ValueError) as error:
        skeleton_of(tmp_path, **options)
    check_one_line(error, *parts)


def test_sigmas(tmp_path):
    assert skeleton_of(tmp_path / "a").sigmas == ()
    assert skeleton_of(tmp_path / "b", sigmas=[0.1, 0.2, 0.3, 0.4, 0.5]).sigmas == (0.1, 0.2, 0.3, 0.4, 0.5)
    # of COCO's joints in COCO's order, whatever way they are written in
    spoken = [name.replace("_", " ").title() for name in COCO_JOINTS]
    for number, joints in enumerate((COCO_JOINTS, spoken)):
        assert skeleton_of(tmp_path / str(number), joints).sigmas == COCO_SIGMAS
    assert skeleton_of(tmp_path / "c", COCO_JOINTS[::-1]).sigmas == ()
    # pycocotools has ten times as much, divided by ten
    tenfold = np.array([0.26, 0.25, 0.25, 0.35, 0.35, *np.repeat([0.79, 0.72, 0.62, 1.07, 0.87, 0.89], 2)])
    np.testing.assert_allclose(COCO_SIGMAS, tenfold / 10)


@pytest.mark.parametrize(
    ("written", "limbs_from", "expected"),
    [
        ([[1, 2], [2, 3]], None, ((0, 1), (1, 2))),  # of three joints: 3 tells
        ([[0, 1], [1, 2]], None, ((0, 1), (1, 2))),  # 0 tells
        ([[1, 2]], 0, ((1, 2),)),
        ([[1, 2]], 1, ((0, 1),)),
        ([], None, ()),
        (None, None, ()),
    ],
)
def test_limbs_count_from_0_or_1(tmp_path, written, limbs_from, expected):
    assert skeleton_of(tmp_path, ["a", "b", "c"], written, limbs_from=limbs_from).limbs == expected


def test_limbs_without_0_and_k_by_what_they_join(tmp_path, told):
    names = ["nose", "left_hip", "left_knee", "right_hip", "right_knee", "tail"]
    # from 0 hip and knee of each side; from 1 nose and left hip, left knee and right hip
    assert skeleton_of(tmp_path, names, [[1, 2], [3, 4]]).limbs == ((1, 2), (3, 4))
    assert skeleton_of(tmp_path, names, [[2, 3], [4, 5]]).limbs == ((1, 2), (3, 4))
    assert [
        (line[line.index("count") :].split(";")[0], line[line.index("limbs_from") :].split(" if")[0])
        for line in told
        if "neither a 0 nor a 6" in line
    ] == [("count from 0", "limbs_from to 1"), ("count from 1", "limbs_from to 0")]


@pytest.mark.parametrize(("places", "expected"), [([0, 50, 52, 100], ((1, 2),)), ([50, 52, 100, 0], ((0, 1),))])
def test_limbs_without_0_and_k_by_their_length(tmp_path, places, expected):
    content = coco_content(1, ["a", "b", "c", "d"], 1)
    content["annotations"][0]["keypoints"] = [number for x in places for number in (x, 40, 2)]
    content["categories"][0]["skeleton"] = [[1, 2]]
    assert ready(write_coco(tmp_path, content), "validate").skeleton.limbs == expected


@pytest.mark.parametrize("written", [[[1, 17], [2, 3]], [[0, 5], [1, 2]], [[-1, 2]], [1, 2], [["a", "b"]], [[1, 2, 3]]])
def test_limbs_of_another_skeleton_are_not_drawn(tmp_path, recwarn, written):
    assert skeleton_of(tmp_path, JOINTS, written).limbs == ()
    lines = [str(warning.message) for warning in recwarn if "no limbs are drawn" in str(warning.message)]
    assert len(lines) == 1
    assert str(tmp_path / "people.json") in lines[0]


def test_joints_without_names_are_numbered_and_told(tmp_path, recwarn):
    content = coco_content()
    content["categories"][0]["keypoints"] = []
    assert ready(write_coco(tmp_path, content)).skeleton.joints == tuple(f"keypoint_{i}" for i in range(5))
    lines = [str(warning.message) for warning in recwarn if "mirror image" in str(warning.message)]
    assert len(lines) == 1
    assert "data.flip_pairs" in lines[0]
    recwarn.clear()
    ready(tmp_path, flip_pairs=[[1, 2]])
    assert not [w for w in recwarn if "mirror image" in str(w.message)]


def test_names_of_the_file_that_has_them(tmp_path, check_one_line):
    nameless, other = coco_content(), coco_content(joints=["a", "b", "c", "d", "e"])
    del nameless["categories"]
    write_coco(tmp_path)
    write_coco(tmp_path, nameless, "nameless.json")
    write_coco(tmp_path, other, "other.json")
    write_coco(tmp_path, coco_content(joints=["a", "b"]), "two.json")
    for files in ({"val_annotations": "nameless.json"}, {"train_annotations": "nameless.json"}):
        assert ready(tmp_path, **files).skeleton.joints == tuple(JOINTS)
    for train, parts in (
        ("other.json", ("joint 0 is a, and nose", "same order")),
        ("two.json", ("2 joints", "5 joints")),
    ):
        with pytest.raises(ValueError) as error:
            ready(tmp_path, train_annotations=train)
        check_one_line(error, tmp_path / train, *parts)


def test_the_skeleton_is_there_before_the_setup(tmp_path):
    data = module(write_coco(tmp_path))
    assert data.skeleton.limbs == ((0, 1), (0, 2), (1, 3), (2, 4))
    json.dumps(data.skeleton.joints)
