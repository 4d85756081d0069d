"""Average precision by OKS: against the library's own evaluation of the same JSON, and by the formula."""

import copy
import math

import numpy as np
import pytest
import torch
from fixtures.coco_files import coco_content
from fixtures.coco_results import agree, by_library, completed, noisy, real_set

from bnnlight.imaging.boxes import pose_score
from bnnlight.metrics.oks import STATS, evaluate_oks

SETS = ("aflw", "aic", "animalpose", "atrw", "coco", "cofw", "deepfasion2", "horse10", "macaque", "onehand10k", "zebra")


@pytest.mark.parametrize("name", SETS)
def test_real_sets_as_the_library_has_them(real_data, name, capsys):
    _, content = real_set(real_data, name)
    results, sigmas = noisy(content), np.linspace(0.03, 0.1, len(content["annotations"][0]["keypoints"]) // 3)
    before = copy.deepcopy((content, results))
    figures = evaluate_oks(content, results, sigmas)
    assert list(figures) == list(STATS)
    assert agree(figures.values(), by_library(completed(content), results, sigmas))
    assert (content, results) == before
    assert capsys.readouterr().out == ""


def one_person(distance_px, **entry):
    """Truth and result of one person whose five joints all lie that far off."""
    content = coco_content(1)
    content["annotations"][0] |= entry
    points = np.array(content["annotations"][0]["keypoints"]).reshape(-1, 3)
    points[:, 0] += distance_px
    return content, [{"image_id": 10, "category_id": 1, "keypoints": points.ravel().tolist(), "score": 0.5}]


def share_of_thresholds(similarity):
    return sum(similarity >= 0.5 + 0.05 * step for step in range(10)) / 10


@pytest.mark.parametrize(
    ("entry", "area"),
    [({}, 4000.5), ({"area": None}, 0.53 * 100 * 60), ({"area": None, "bbox": [0, 0, 80, 50]}, 0.53 * 80 * 50)],
)
def test_similarity_by_hand(entry, area):
    sigmas = [0.02, 0.05, 0.05, 0.1, 0.1]
    for distance in (2.0, 3.0, 5.0):
        figures = evaluate_oks(*one_person(distance, **entry), sigmas)
        similarity = np.mean([math.exp(-(distance**2) / (2 * area * (2 * sigma) ** 2)) for sigma in sigmas])
        # with one person and one prediction precision and recall are whether it is right
        assert figures["ap"] == pytest.approx(share_of_thresholds(similarity))
        assert figures["ar"] == pytest.approx(share_of_thresholds(similarity))
        assert figures["ap_m"] == figures["ap"]
        assert math.isnan(figures["ap_l"])
    assert 0 < share_of_thresholds(similarity) < 1


def test_joints_that_are_not_annotated_do_not_count_and_a_missing_count_is_filled_in():
    content, results = one_person(0.0, num_keypoints=None, iscrowd=None)
    content["annotations"][0]["keypoints"][2] = 0
    results[0]["keypoints"][0] += 1000
    assert evaluate_oks(content, results, [0.05] * 5)["ap"] == pytest.approx(1)


def test_id_zero_is_an_id():
    # the library takes a match with annotation 0 for none
    content, results = one_person(0.0, id=0)
    assert by_library(content, results, [0.05] * 5)[0] == pytest.approx(0)
    assert evaluate_oks(content, results, [0.05] * 5)["ap"] == pytest.approx(1)


def test_crowds_and_people_without_joints_are_neither_right_nor_wrong():
    content = coco_content(3, num_pictures=1)
    content["annotations"][1] |= {"keypoints": [0] * 15, "num_keypoints": 0}
    del content["annotations"][2]["keypoints"]
    content["annotations"][2]["iscrowd"] = 1
    points = content["annotations"][0]["keypoints"]
    # the second lies in the box of those that are ignored
    results = [{"image_id": 10, "keypoints": points, "score": 0.3}]
    results.append({"image_id": 10, "keypoints": [60, 50, 1] * 5, "score": 0.9})
    assert evaluate_oks(content, results, [0.05] * 5)["ap"] == pytest.approx(1)
    for annotation in content["annotations"][1:]:
        annotation["image_id"] = 11
    content["images"].append({"id": 11})
    # the better score is now plainly wrong
    assert evaluate_oks(content, results, [0.05] * 5)["ap"] == pytest.approx(0.5)


def test_only_chosen_images_count_and_no_result_at_all_is_zero():
    content = coco_content(4)
    results = [
        {name: entry[name] for name in ("image_id", "keypoints")} | {"score": 1.0}
        for entry in content["annotations"]
        if entry["image_id"] == 10
    ]
    # of half of the people recall ends at 0.5: 51 of the 101 places at which precision is read
    assert evaluate_oks(content, results, [0.05] * 5)["ap"] == pytest.approx(51 / 101)
    assert evaluate_oks(content, results, [0.05] * 5, {10})["ap"] == pytest.approx(1)
    assert evaluate_oks(content, [], [0.05] * 5)["ap"] == 0


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda truth, results: results[0]["keypoints"].pop(), "result 1 of 1: keypoints holds 14 numbers where 5"),
        (lambda truth, results: truth["annotations"][0]["keypoints"].pop(), "annotation 1 of 1: keypoints holds 14"),
        (lambda truth, results: results[0].update(image_id=7), "image_id 7, which the annotations do not have"),
        (lambda truth, results: truth["annotations"][0].update(area=math.nan), "annotation 1 of 1 has area nan"),
        (lambda truth, results: truth["annotations"][0].update(bbox=[1, 2]), "annotation 1 of 1 has bbox"),
    ],
)
def test_wrong_entries(change, part):
    truth, results = one_person(0.0)
    change(truth, results)
    with pytest.raises(ValueError, match=part):
        evaluate_oks(truth, results, [0.05] * 5)


def test_score_of_a_person_by_hand():
    confidence = torch.tensor([[0.9, 0.3, 0.2, 0.0], [0.2, 0.1, 0.0, 0.19], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    assert [pose_score(row) for row in confidence.tolist()] == pytest.approx([0.6, 0, 1])
