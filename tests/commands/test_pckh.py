"""PCKh of MATLAB files: by hand, by a loop, and against the published predictions."""

import json
import math

import numpy as np
import pytest
import scipy.io

NAMES = (
    *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle", "pelvis", "thorax"),
    *("upper neck", "head top", "right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow"),
    "left wrist",
)
SHORT = (
    *("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor"),
    *("neck", "head", "rwri", "relb", "rsho", "lsho", "lelb", "lwri"),
)
# column of the table → how the names of its joints end
COLUMNS = dict(
    zip(
        ("Head", "Sho.", "Elb.", "Wri.", "Hip", "Knee", "Ank."),
        ("head top", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
        strict=True,
    )
)
PEOPLE = 3
PELVIS, THORAX, RIGHT_WRIST = 6, 7, 10


class Files:
    """A ground truth and predictions that equal it, to be changed and then written."""

    def __init__(self, folder):
        self.predictions, self.truth = folder / "predictions.mat", folder / "gt.mat"
        rng = np.random.default_rng(0)
        # whole numbers, so that distances by 3-4-5 triangles are exact
        joints = rng.integers(100, 500, (PEOPLE, 16, 2)).astype(np.float64)
        # 30 × 40 px: a diagonal of 50, a head size of 30, limits of 15 and 3 px
        boxes = np.tile(np.array([[100.0, 200.0], [130.0, 240.0]])[..., None], PEOPLE)
        self.gt = {
            "pos_gt_src": joints.transpose(1, 2, 0).copy(),
            "headboxes_src": boxes,
            "jnt_missing": np.zeros((16, PEOPLE), dtype=np.uint8),
            "dataset_joints": np.array([SHORT], dtype=object),
        }
        self.preds = {"preds": joints.copy()}

    def write(self):
        scipy.io.savemat(self.truth, self.gt)
        scipy.io.savemat(self.predictions, self.preds)
        return "pckh", self.predictions, self.truth


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return Files(tmp_path)


@pytest.fixture
def measure(bnnlight, files):
    """Write the files and return the JSON."""

    def run():
        code, out, err = bnnlight(*files.write(), "--json")
        assert code == 0, err
        return json.loads(out)

    return run


def table_rows(out):
    rows = [line.split() for line in out.splitlines() if line.startswith("PCKh@")]
    return {row[0]: row[1:] for row in rows}


def test_both_means_of_an_unbalanced_case_by_hand(bnnlight, files, measure):
    # the right wrist is annotated once and wrong then, the pelvis always wrong, the thorax never annotated
    files.preds["preds"][0, RIGHT_WRIST] += 100
    files.gt["jnt_missing"][RIGHT_WRIST, 1:] = 1
    files.preds["preds"][:, PELVIS] += 100
    files.gt["jnt_missing"][THORAX] = 1
    record = measure()
    found = record["PCKh@0.5"]
    assert found["mean_over_joints"] == pytest.approx(100 * 13 / 14, rel=1e-14)
    assert found["mean_over_visible"] == pytest.approx(100 * 39 / 40, rel=1e-14)
    others = {name: 100 for name in NAMES if name not in ("right wrist", "pelvis", "thorax")}
    assert found["joints"] == others | {"right wrist": 0, "pelvis": 0, "thorax": None}
    assert found["groups"] == {name: 50 if name == "Wri." else 100 for name in COLUMNS}
    assert (record["num_people"], record["num_joints"]) == (3, 40)
    assert record["count"] == {name: {"right wrist": 1, "thorax": 0}.get(name, 3) for name in NAMES}
    _, out, _ = bnnlight(*files.write())
    assert table_rows(out)["PCKh@0.5"] == [*["100.00"] * 3, "50.00", *["100.00"] * 3, "92.857", "97.500"]
    assert "3 people, 40 visible joints" in out


def test_a_joint_at_exactly_the_limit_counts(files, measure):
    files.preds["preds"][0, 0] += (9, 12)  # 15 px, 0.5 × 30
    files.preds["preds"][1, 0] += (0, 15.001)
    files.preds["preds"][0, 1] += (-3, 0)  # 0.1 × 30
    files.preds["preds"][1, 1] += (3.001, 0)
    record = measure()
    assert record["PCKh@0.5"]["joints"]["right ankle"] == pytest.approx(200 / 3)
    assert record["PCKh@0.5"]["joints"]["right knee"] == 100
    assert record["PCKh@0.1"]["joints"]["right ankle"] == pytest.approx(100 / 3)
    assert record["PCKh@0.1"]["joints"]["right knee"] == pytest.approx(200 / 3)


def scatter(files):
    """Predictions of every quality, boxes of every size, a third of the joints missing and nonsense there."""
    rng = np.random.default_rng(1)
    files.preds["preds"] += rng.normal(0, 18, (PEOPLE, 16, 2))
    files.gt["headboxes_src"][1] += rng.uniform(0, 60, (2, PEOPLE))
    missing = rng.uniform(size=(16, PEOPLE)) < 0.35
    missing[[10, 15]] = [True, True, True], [False, True, False]
    files.gt["jnt_missing"] = missing.astype(np.uint8)
    files.gt["pos_gt_src"].transpose(0, 2, 1)[missing] = np.nan


def test_every_figure_equals_a_loop(files, measure):
    scatter(files)
    record = measure()
    for threshold in (0.5, 0.1):
        rates, right, seen = {}, 0, 0
        for joint, name in enumerate(NAMES):
            hits = []
            for person in range(PEOPLE):
                if files.gt["jnt_missing"][joint, person]:
                    continue
                (x1, y1), (x2, y2) = files.gt["headboxes_src"][:, :, person]
                (x, y), (true_x, true_y) = files.preds["preds"][person, joint], files.gt["pos_gt_src"][joint, :, person]
                distance = math.hypot(x - true_x, y - true_y)
                hits.append(distance <= threshold * 0.6 * math.hypot(x2 - x1, y2 - y1))
            rates[name] = 100 * sum(hits) / len(hits) if hits else None
            if name not in ("pelvis", "thorax"):
                right, seen = right + sum(hits), seen + len(hits)
        found = record[f"PCKh@{threshold}"]
        assert list(found["joints"]) == list(NAMES)
        for name, rate in rates.items():
            assert found["joints"][name] == (None if rate is None else pytest.approx(rate, rel=1e-14))
        known = [rate for name, rate in rates.items() if name not in ("pelvis", "thorax") and rate is not None]
        assert found["mean_over_joints"] == pytest.approx(sum(known) / len(known), rel=1e-14)
        assert found["mean_over_visible"] == pytest.approx(100 * right / seen, rel=1e-14)
        assert record["num_joints"] == seen
        for column, joint in COLUMNS.items():
            pair = [rate for name, rate in rates.items() if name.endswith(joint) and rate is not None]
            assert found["groups"][column] == pytest.approx(sum(pair) / len(pair), rel=1e-14)
    assert len(set(record["PCKh@0.5"]["groups"].values())) > 2


def test_table_says_what_json_says(bnnlight, files, measure):
    scatter(files)
    files.gt["jnt_missing"][9] = 1
    record = measure()
    assert record["PCKh@0.5"]["groups"]["Head"] is None
    code, out, _ = bnnlight(*files.write())
    assert code == 0
    header = next(line for line in out.splitlines() if "Sho." in line)
    assert header.split() == [*COLUMNS, "of", "14", "visible"]
    for row, cells in table_rows(out).items():
        found = record[row]
        groups = ["–" if n is None else f"{n:.2f}" for n in found["groups"].values()]
        assert cells == [*groups, f"{found['mean_over_joints']:.3f}", f"{found['mean_over_visible']:.3f}"]
    assert list(table_rows(out)) == ["PCKh@0.5", "PCKh@0.1"]


def test_table_fits_80_columns_at_its_widest(bnnlight, files):
    _, out, _ = bnnlight(*files.write())
    assert table_rows(out)["PCKh@0.1"] == ["100.00"] * 7 + ["100.000"] * 2
    assert max(map(len, out.splitlines())) <= 80
    assert "pytorch-pose" in out and "mmpose" in out


def test_help_says_the_frame_and_the_means(bnnlight):
    _, out, _ = bnnlight("pckh", "--help")
    text = " ".join(out.split())
    assert "as they are stored: both files 1-based" in text
    assert "mean of the 14 joints' rates (pytorch-pose)" in text
    assert "(mmpose, the MPII site)" in text


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_predictions_of_any_kind_of_number(files, measure, dtype):
    # left and above of the truth by 1 and by 20 px: a difference of unsigned integers would wrap round
    files.preds["preds"][:, 0] -= 1
    files.preds["preds"][:, 1] -= 20
    files.preds["preds"] = files.preds["preds"].astype(dtype)
    files.gt["pos_gt_src"] = files.gt["pos_gt_src"].astype(dtype)
    files.gt["headboxes_src"] = files.gt["headboxes_src"][::-1].astype(dtype)
    joints = measure()["PCKh@0.5"]["joints"]
    assert joints == {name: 0 if name == "right knee" else 100 for name in NAMES}


def test_a_single_person_whose_last_axis_matlab_dropped(files, measure):
    files.gt["pos_gt_src"] = files.gt["pos_gt_src"][:, :, 0]
    files.gt["headboxes_src"] = files.gt["headboxes_src"][:, :, 0]
    files.gt["jnt_missing"] = files.gt["jnt_missing"][:, :1]
    files.preds["preds"] = files.preds["preds"][:1]
    record = measure()
    assert (record["num_people"], record["num_joints"]) == (1, 14)
    assert record["PCKh@0.1"]["mean_over_joints"] == 100


V73 = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM" + bytes(384)


@pytest.mark.parametrize("which", ["predictions", "truth"])
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ("no such file",)),
        (b"x y\n1 2\n" * 100, ("not a MATLAB file",)),
        (b"", ("not a MATLAB file",)),
        (b"short", ("not a MATLAB file",)),
        (V73, ("v7.3", "save it again", "'-v7'")),
        ("half", ("not a MATLAB file", "damaged")),
        ("fields", ("no field", "it has first, second")),
        ("nothing", ("no field", "it has none")),
    ],
    ids=["missing", "text", "empty", "short", "v7.3", "half", "fields", "nothing"],
)
def test_files_that_cannot_be_read(bnnlight_error, files, which, content, parts):
    args = files.write()
    path = getattr(files, which)
    if content is None:
        path.unlink()
    elif content == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content in ("fields", "nothing"):
        scipy.io.savemat(path, {"second": 1, "first": 2} if content == "fields" else {})
    else:
        path.write_bytes(content)
    code, line = bnnlight_error(*args)
    assert code == 2
    for part in (str(path), *parts):
        assert part in line, line


def gt(name, change):
    def apply(files):
        files.gt[name] = change(files.gt[name])

    return apply


def preds(change):
    def apply(files):
        files.preds["preds"] = change(files.preds["preds"])

    return apply


def at(place, value):
    def change(array):
        array = np.array(array, dtype=np.float64)
        array[place] = value
        return array

    return change


def reversed_names(_):
    return np.array([SHORT[::-1]], dtype=object)


# what is changed → which file and what more the line must name
WRONG_FIELDS = {
    "14 joints": (preds(lambda p: p[:, :14]), ("predictions", "preds is 3×14×2", "N×16×2", "14 joints", "16")),
    "16×2×N": (preds(lambda p: p.transpose(1, 2, 0)), ("predictions", "16×2×3", "N×16×2", "reordered")),
    "N×2×16": (preds(lambda p: p.transpose(0, 2, 1)), ("predictions", "3×2×16", "N×16×2", "reordered")),
    "confidence": (preds(lambda p: np.dstack([p, p[..., :1]])), ("predictions", "3×16×3", "N×16×2")),
    "flat": (preds(lambda p: p.reshape(3, 32)), ("predictions", "3×32", "N×16×2")),
    "fewer people": (preds(lambda p: p[:2]), ("predictions", "preds has 2 people", "gt.mat has 3")),
    "more people": (preds(lambda p: np.vstack([p, p])), ("predictions", "preds has 6 people", "gt.mat has 3")),
    "NaN": (preds(at((1, 9, 1), np.nan)), ("predictions", "preds", "NaN", "entry 1", "head top")),
    "inf": (preds(at((2, 0, 0), -np.inf)), ("predictions", "preds", "infinite", "entry 2", "right ankle")),
    "complex": (preds(lambda p: p + 1j), ("predictions", "preds", "real numbers")),
    "words": (preds(lambda p: "none"), ("predictions", "preds", "real numbers")),
    "cells": (preds(lambda p: np.array([[1, "a"]], dtype=object)), ("predictions", "preds", "real numbers")),
    "gt order": (gt("pos_gt_src", lambda p: p.transpose(2, 0, 1)), ("gt", "pos_gt_src is 3×16×2", "16×2×N")),
    "gt joints": (gt("pos_gt_src", lambda p: p[:14]), ("gt", "pos_gt_src is 14×2×3", "16×2×N")),
    "gt NaN": (gt("pos_gt_src", at((5, 0, 2), np.nan)), ("gt", "pos_gt_src", "entry 2", "left ankle", "jnt_missing")),
    "no people": (gt("pos_gt_src", lambda p: p[:, :, :0]), ("gt", "headboxes_src")),
    "boxes": (gt("headboxes_src", lambda b: b[:, :, :2]), ("gt", "headboxes_src is 2×2×2", "2×2×N", "N = 3")),
    "missing": (gt("jnt_missing", lambda m: m.T), ("gt", "jnt_missing is 3×16", "16×N", "N = 3")),
    "point box": (gt("headboxes_src", at((slice(None), slice(None), 1), 7)), ("gt", "headboxes_src", "0.0", "entry 1")),
    "NaN box": (gt("headboxes_src", at((0, 0, 2), np.nan)), ("gt", "headboxes_src", "nan", "entry 2")),
    "names": (gt("dataset_joints", reversed_names), ("gt", "dataset_joints is lwri, lelb", "expected rank, rkne")),
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_wrong_fields(bnnlight_error, files, name):
    change, (which, *parts) = WRONG_FIELDS[name]
    change(files)
    code, line = bnnlight_error(*files.write())
    assert code == 2
    assert f"error: {files.predictions if which == 'predictions' else files.truth}" in line
    for part in parts:
        assert part in line, line


@pytest.mark.parametrize("name", ["pos_gt_src", "headboxes_src", "jnt_missing", "dataset_joints"])
def test_a_missing_field_of_the_ground_truth_is_named(bnnlight_error, files, name):
    del files.gt[name]
    code, line = bnnlight_error(*files.write())
    assert code == 2
    assert f"{files.truth} has no field {name}: it has {', '.join(sorted(files.gt))}" in line


def test_a_ground_truth_of_nobody(bnnlight_error, files):
    for name in ("pos_gt_src", "headboxes_src", "jnt_missing"):
        files.gt[name] = files.gt[name][..., :0]
    code, line = bnnlight_error(*files.write())
    assert code == 2
    assert "no people" in line


@pytest.mark.parametrize(("args", "part"), [((), "PREDICTIONS, GT"), (("a.mat", "b.mat", "--jsn"), "--jsn")])
def test_usage_errors(bnnlight_error, args, part):
    code, line = bnnlight_error("pckh", *args)
    assert code == 2
    assert part in line


def test_published_figures(real_data, bnnlight):
    folder = real_data("mpii_val")
    # predictions of bearpaw/pytorch-pose; its README prints the row of hg_s2_b1
    expected = {"hg_s2_b1": ("86.757", "87.299", "23.914"), "hg_s1_b1": ("84.461", "85.085", "22.810")}
    for name, (mean, visible, fine) in expected.items():
        args = ("pckh", folder / f"preds/{name}.mat", folder / "annot/gt_valid.mat")
        code, out, err = bnnlight(*args)
        assert code == 0, err
        coarse_row, fine_row = (table_rows(out)[f"PCKh@{threshold}"] for threshold in (0.5, 0.1))
        assert (coarse_row[-2:], fine_row[-1]) == ([mean, visible], fine)
        if name == "hg_s2_b1":
            assert coarse_row[:7] == ["95.80", "94.57", "88.12", "83.31", "86.24", "80.88", "77.44"]
        record = json.loads(bnnlight(*args, "--json")[1])
        assert record["num_people"] == 2958
        assert sum(record["count"].values()) == 44240
