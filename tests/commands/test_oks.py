"""`bnnlight oks`: the library's own figures of the same JSON, and one line for each wrong file."""

import json
import math

import pytest
from fixtures.coco_files import JOINTS, coco_content
from fixtures.coco_results import agree, by_library, completed, noisy, real_set

from bnnlight.data.keypoints.coco_files.skeleton import COCO_SIGMAS
from bnnlight.metrics.oks import STATS


def write(folder, content, results):
    """Both files; returns the options."""
    for name, value in (("truth.json", content), ("results.json", results)):
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return "--annotations", folder / "truth.json", "--predictions", folder / "results.json"


@pytest.mark.parametrize("name", ["coco", "macaque", "horse10", "aic", "onehand10k", "deepfasion2"])
def test_real_sets_as_the_library_has_them(real_data, bnnlight, tmp_path, name):
    path, content = real_set(real_data, name)
    results, num = noisy(content, 5), len(content["annotations"][0]["keypoints"]) // 3
    options = list(write(tmp_path, content, results))
    options[1] = path
    sigmas = COCO_SIGMAS
    if name not in ("coco", "macaque"):  # whose joints are named as COCO's
        sigmas = tuple(0.04 + 0.001 * (index % 9) for index in range(num))
        options += ["--sigmas", ",".join(map(str, sigmas))]
    code, out, err = bnnlight("oks", *options, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert agree([record[stat] for stat in STATS], by_library(completed(content), results, sigmas))
    assert record["num_predictions"] == len(results)


def test_table_has_the_same_figures(bnnlight, tmp_path):
    content = coco_content()
    results = noisy(content)
    options = write(tmp_path, content, results)
    sigmas = "[0.05, 0.05, 0.05, 0.1, 0.1]"
    code, out, err = bnnlight("oks", *options, "--sigmas", sigmas)
    assert code == 0, err
    stats = by_library(content, results, json.loads(sigmas))
    rows = [line.split() for line in out.splitlines() if line.startswith(("AP", "AR")) and "means" not in line]
    assert [row[-1] for row in rows] == ["–" if stat < 0 else f"{stat:.4f}" for stat in stats]
    # all are of medium size
    assert rows[4][-1] == "–"


def test_ids_as_text_and_annotations_without_names(bnnlight, tmp_path):
    content = coco_content(4)
    results = noisy(content)
    expected = by_library(content, results, [0.05] * 5)
    del content["categories"][0]["keypoints"]
    for entry in results:
        entry["image_id"] = str(entry["image_id"])
        del entry["category_id"]
    code, out, err = bnnlight(
        "oks", *write(tmp_path, content, results), "--sigmas", "0.05 0.05 0.05 0.05 0.05", "--json"
    )
    assert code == 0, err
    assert agree([json.loads(out)[stat] for stat in STATS], expected)


def test_a_category_is_chosen_where_joints_differ(bnnlight, bnnlight_error, tmp_path):
    content = coco_content(2)
    results = noisy(content)
    other = coco_content(1, JOINTS[:3])
    content["annotations"].append(other["annotations"][0] | {"id": 7, "category_id": 2})
    content["categories"].append({"id": 2, "name": "hand", "keypoints": JOINTS[:3]})
    options = *write(tmp_path, content, results), "--sigmas", "0.05,0.05,0.05,0.05,0.05"
    _, line = bnnlight_error("oks", *options)
    assert "entry 3 of 3 (0.jpg): keypoints are 3 joints, and 5 in the first annotation" in line
    code, out, err = bnnlight("oks", *options, "--category", "person", "--json")
    assert code == 0, err
    assert agree([json.loads(out)[stat] for stat in STATS], by_library(coco_content(2), results, [0.05] * 5))
    _, line = bnnlight_error("oks", *options, "--category", "cat")
    assert "no category 'cat': give a name or id of 1 person, 2 hand" in line


def entry(**change):
    return lambda truth, results: results[1].update(change)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            entry(image_id=77),
            ("results.json: entry 2 of 4 has image_id 77", "not one of the 2 images of", "truth.json"),
        ),
        (entry(keypoints=[1.0] * 12), ("entry 2 of 4: keypoints holds 12 numbers where the 5 joints", "need 15")),
        (entry(keypoints=[math.nan] * 15), ("entry 2 of 4: keypoints has a NaN", "give each joint a place")),
        (entry(keypoints=["a"] * 15), ("entry 2 of 4: keypoints is", "where numbers belong")),
        (entry(keypoints=[[1, 2, 3]] * 5), ("entry 2 of 4: keypoints holds lists within a list",)),
        (entry(score=math.inf), ("entry 2 of 4: score has a NaN or infinite number",)),
        (entry(score=None), ("entry 2 of 4 has no score; give a JSON list in COCO's results form",)),
        (entry(bbox=[1, 2]), ("entry 2 of 4: score is not a number, or bbox not x, y",)),
        (entry(category_id=3), ("entry 2 of 4 has category_id 3, and", "has 1 person")),
        (lambda truth, results: results.clear(), ("results.json is an empty list: there is nothing to measure",)),
        (lambda truth, results: results.__setitem__(1, 5), ("entry 2 of 4 is a int",)),
        (
            lambda truth, results: truth["annotations"][2]["keypoints"].__setitem__(0, math.nan),
            ("truth.json: entry 3 of 4 (0.jpg): keypoints has a NaN",),
        ),
        (
            lambda truth, results: truth["annotations"][2].update(area="big"),
            ("truth.json: annotation 3 of 4 has area",),
        ),
    ],
)
def test_wrong_entries(bnnlight_error, tmp_path, change, parts):
    content = coco_content()
    results = [{name: one[name] for name in ("image_id", "category_id", "keypoints")} for one in content["annotations"]]
    results = [one | {"keypoints": list(one["keypoints"]), "score": 0.5} for one in results]
    change(content, results)
    code, line = bnnlight_error("oks", *write(tmp_path, content, results), "--sigmas", "0.05,0.05,0.05,0.05,0.05")
    assert code == 2
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("results", "sigmas", "parts"),
    [
        ({"annotations": []}, None, ("results.json holds an object with annotations where a list belongs",)),
        ("[{", "0.1,0.1,0.1,0.1,0.1", ("results.json is not valid JSON",)),
        ("[" * 100000, "0.1,0.1,0.1,0.1,0.1", ("results.json is nested too deeply",)),
        ([], None, ("its 5 joints are not named as COCO's 17", "give --sigmas with 5 numbers")),
        ([], "coco", ("--sigmas has 17 numbers, and", "has 5 joints")),
        ([], "0.1,0.1", ("--sigmas has 2 numbers, and", "has 5 joints: give one for each")),
        ([], "0.1,0.1,0.1,0.1,0", ("give numbers above 0",)),
        ([], "0.1,a", ("give numbers with commas between them, or coco",)),
    ],
)
def test_wrong_files_and_sigmas(bnnlight_error, tmp_path, results, sigmas, parts):
    options = write(tmp_path, coco_content(), results)
    # sigmas are looked at first
    sigmas = "0.1,0.1,0.1,0.1,0.1" if isinstance(results, dict) else sigmas
    _, line = bnnlight_error("oks", *options, *(["--sigmas", sigmas] if sigmas else []))
    for part in parts:
        assert part in line


def test_missing_files(bnnlight_error, tmp_path):
    options = write(tmp_path, coco_content(), [])
    (tmp_path / "results.json").unlink()
    _, line = bnnlight_error("oks", *options, "--sigmas", "0.1,0.1,0.1,0.1,0.1")
    assert f"predictions not found: looked for {tmp_path / 'results.json'}" in line
    (tmp_path / "truth.json").unlink()
    _, line = bnnlight_error("oks", *options)
    assert "annotations not found" in line
