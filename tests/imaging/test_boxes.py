"""People in boxes: the square that is cut out, their score, and what is not a box."""

import numpy as np
import pytest
from fixtures.coco_files import coco_content, people_of

from bnnlight.imaging.boxes import check_boxes, fault_of, find_people, pose_score, square_round_box


def test_the_square_is_that_of_training(tmp_path):
    content = coco_content()
    content["annotations"][1]["bbox"] = [3.5, 10.25, 40, 71.5]
    people = people_of(content, tmp_path, box_padding=1.4)
    for annotation, center, side in zip(content["annotations"], people.center, people.side_px, strict=True):
        found = square_round_box(np.array(annotation["bbox"], float), 1.4)
        np.testing.assert_allclose(found[0], center)
        assert found[1] == pytest.approx(side)


def test_only_sure_joints_count_for_the_score():
    assert pose_score([0.9, 0.3, 0.2, 0.1]) == pytest.approx(0.6)
    assert pose_score([0.2, 0.1]) == 0


def test_people_of_several_pictures_go_through_in_batches_and_come_back_in_order():
    calls = []

    def find(images, squares):
        calls.append(len(images))
        return [
            {"joints": [{"joint": "a", "x": float(image[0, 0, 0]), "y": side, "confidence": 0.5}]}
            for image, (_, side) in zip(images, squares, strict=True)
        ]

    images = [np.full((4, 6, 3), value, np.uint8) for value in (1, 2, 3)]
    boxes = [np.array([[0, 0, 2, 1], [0, 0, 1, 3.0]]), np.zeros((0, 4)), np.array([[0, 0, 4.0, 4]])]
    found = find_people(images, boxes, 1.5, 2, find)
    assert calls == [2, 1]
    places = [[(person["joints"][0]["x"], person["joints"][0]["y"]) for person in one["people"]] for one in found]
    assert places == [[(1, 3), (1, 4.5)], [], [(3, 6)]]
    assert found[0]["people"][1]["box"] == [0, 0, 1, 3] and found[0]["people"][1]["score"] == 0.5
    # without boxes, whole pictures: the square's side is the longer one
    assert [one["joints"][0]["y"] for one in find_people(images, None, 1.5, 8, find)] == [6, 6, 6]


def test_what_is_wrong_with_a_box():
    # pixels of a picture of 10×8 reach from -0.5 to 9.5 and 7.5
    for box, part in (
        ((9, 0, 5, 5), ""),
        ((-5, -5, 5, 5), ""),
        ((9.5, 0, 5, 5), "outside"),
        ((0, -6, 5, 5.5), "outside"),
        ((0, 0, 0, 5), "0×5"),
        ((0, 0, 5, -1), "above 0"),
        ((np.nan, 0, 5, 5), "not a number"),
        ((0, 0, np.inf, 5), "not a number"),
        ((-1e300, 0, 2e300, 5), "beyond 2³¹ px: -1e+300, 0, 2e+300, 5"),
        ((0, 0, 2**31, 5), "beyond"),
        ((0, 0, 2**31 - 1, 5), ""),
    ):
        fault = fault_of(np.array(box, float), (10, 8))
        assert (part in fault) if part else not fault, box
    assert check_boxes([]).shape == (0, 4) and check_boxes([(1, 2, 3, 4)]).shape == (1, 4)
    for wrong in ([1, 2, 3, 4], [[1, 2, 3]], [["a"] * 4], 3, None, [[0, 0, 0, 1]]):
        with pytest.raises(ValueError, match="box"):
            check_boxes(wrong)
