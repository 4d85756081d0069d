"""What COCO's data module gives for measuring: the annotations for OKS, and NME's reference length."""

import json
import math

import numpy as np
import pytest
from fixtures.coco_files import coco_content, keypoints, module, ready, write_coco

from bnnlight.data.keypoints.coco_files.truth import coco_truth, plain_id


def test_crowds_and_people_without_joints_are_there_and_a_batch_tells_its_annotations(tmp_path):
    content = coco_content(5)
    content["annotations"][0]["keypoints"] = [0] * 15
    content["annotations"][2] |= {"iscrowd": 1, "keypoints": None}
    content["annotations"][1]["iscrowd"] = "0"  # as some programs write it
    content["annotations"][3]["iscrowd"] = False
    for name in ("area", "num_keypoints", "id"):
        del content["annotations"][3][name]
    data = ready(write_coco(tmp_path, content))
    truth = data.oks_truth("val")
    assert [entry["id"] for entry in truth["annotations"]] == [1, 2, 3, 4, 5]
    assert [entry.get("iscrowd") for entry in truth["annotations"]] == [0, 0, 1, 0, 0]
    assert "keypoints" not in truth["annotations"][2]
    assert [name in truth["annotations"][3] for name in ("area", "num_keypoints", "bbox")] == [False, False, True]
    assert truth["images"] == [{"id": 10}, {"id": 11}]
    assert truth["categories"][0]["name"] == "person"
    assert next(iter(data.val_dataloader()))["entry"].tolist() == [2, 4, 5]
    for number in (2, 4, 5):
        entry, origin = truth["annotations"][number - 1], content["annotations"][number - 1]
        assert entry["keypoints"].tolist() == origin["keypoints"]
        assert (entry["image_id"], entry["bbox"]) == (origin["image_id"], origin["bbox"])
    # read once
    assert data.oks_truth("test") is data.oks_truth("val") is truth


def test_truth_is_in_the_pixels_and_flags_that_are_read(tmp_path):
    content = coco_content(2)
    content["annotations"][0]["keypoints"][2::3] = [2, 1, 0, 2, 1]
    data = ready(write_coco(tmp_path, content), origin=0.5, visible=[2.0])
    entry = data.oks_truth("val")["annotations"][0]
    assert entry["keypoints"].reshape(5, 3)[:, 2].tolist() == [2, 0, 0, 2, 0]
    assert entry["num_keypoints"] == 2
    expected = np.array(keypoints(0)).reshape(5, 3)[:, :2] - 0.5
    np.testing.assert_allclose(entry["keypoints"].reshape(5, 3)[:, :2], expected)
    assert entry["bbox"] == [19.5, 29.5, 100, 60]


def test_ids_of_every_kind():
    assert [plain_id(name) for name in (7, 7.0, "7", "-3", "a7", "7.5")] == [7, 7, 7, -3, "a7", "7.5"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"keypoints": [1, 2, 2]}, "entry 2 of 2 (1.jpg): keypoints are 1 joints, and 5 in the first annotation"),
        ({"keypoints": [1, 2]}, "entry 2 of 2 (1.jpg): keypoints is not a list of x, y and flag"),
        ({"keypoints": "none"}, "entry 2 of 2 (1.jpg): keypoints is not a list of x, y and flag"),
        ({"keypoints": [math.inf, *[1] * 14]}, "entry 2 of 2 (1.jpg): keypoints has a NaN or infinite number"),
    ],
)
def test_wrong_annotations(tmp_path, check_one_line, change, part):
    content = coco_content(2)
    content["annotations"][1] |= change
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError) as error:
        coco_truth(path, "")
    check_one_line(error, path, part)


def test_reference_of_nme_by_box_and_by_joints(tmp_path):
    content = coco_content(3)
    content["annotations"][1]["keypoints"][5] = 0
    root = write_coco(tmp_path, content)
    by_box = next(iter(ready(root).val_dataloader()))["nme_px"]
    assert by_box.tolist() == pytest.approx([math.sqrt(100 * 60)] * 3)
    for pair in (["left_eye", "right_hip"], [1, 4]):
        by_joints = next(iter(ready(root, nme_joints=pair).val_dataloader()))["nme_px"].tolist()
        tables = [np.array(keypoints(number)).reshape(5, 3)[:, :2] for number in range(3)]
        expected = [math.dist(table[1], table[4]) for table in tables]
        assert [by_joints[0], by_joints[2]] == pytest.approx([expected[0], expected[2]], rel=1e-6)
        assert math.isnan(by_joints[1])


@pytest.mark.parametrize(
    ("pair", "part"),
    [
        (["left_eye"], "data.nme_joints is ['left_eye']: give two joints"),
        (["left_eye", "tail"], "data.nme_joints names the joint 'tail', which"),
        ([0, 5], "data.nme_joints names the joint 5, which"),
        (["nose", "nose"], "nobody has both nose and nose annotated, apart from each other"),
    ],
)
def test_wrong_joints_of_nme(tmp_path, check_one_line, pair, part):
    data = module(write_coco(tmp_path), nme_joints=pair)
    with pytest.raises(ValueError) as error:
        data.prepare_data()
    check_one_line(error, part)
