"""`bnnlight predict --boxes`: people in boxes, their places by hand, in bnnlight's JSON and in COCO's results form."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from bnnlight.deploy import Runtime
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.imaging.pose_crop import cut_out
from bnnlight.imaging.skeletons import Skeleton

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/predictions.schema.json").read_text())
NAMES = ("red", "green", "blue")
TRIANGLE = Skeleton(NAMES, ((0, 1), (1, 2)), (), (), (), ((0, 1),))


class Engine:
    """An engine in numpy: the heat maps are the colours, so that each joint lies where its colour is brightest."""

    manifest = Manifest("pose", "x.Y", PictureInput(3, 64, (0.0,) * 3, (1.0,) * 3, box_padding=1.5), (), TRIANGLE)
    input_shape = 3, 64, 64
    batches: ClassVar[list[int]] = []

    def __init__(self, file, num_threads=None):
        pass

    def __call__(self, images):
        self.batches.append(len(images))
        return images[:, None]


class Classifier(Engine):
    manifest = Manifest("classification", "x.Y", PictureInput(3, 64, (0.0,) * 3, (1.0,) * 3, 64), ("a", "b", "c"))

    def __call__(self, images):
        return images.mean((2, 3))


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(Engine, "batches", [])
    monkeypatch.setitem(sys.modules, "bnnlight.deploy.formats.onnx", SimpleNamespace(OnnxEngine=Engine))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.onnx").touch()
    return tmp_path / "model"


PEOPLE = {
    # box, and the middles of a red, a green and a blue spot of 7×7 px
    "7.png": [
        ((20, 30, 60, 90), ((40, 50), (60, 60), (50, 100))),
        ((150, 20, 80, 40), ((170, 30), (210, 50), (190, 40))),
    ],
    "12.png": [((0, 0, 100, 100), ((10, 20), (80, 70), (30, 90)))],
}
STRENGTH = 0.8, 0.6, 0.1
"""Of the spots, which are the confidences: their means above 0.2 are 0.7."""


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, people in PEOPLE.items():
        pixels = np.zeros((160, 240, 3), np.uint8)
        for _, spots in people:
            for channel, (x, y) in enumerate(spots):
                pixels[y - 3 : y + 4, x - 3 : x + 4, channel] = round(255 * STRENGTH[channel])
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def boxes(tmp_path):
    content = [
        {"image_id": int(name[:-4]), "bbox": list(box), "score": 0.9 - 0.1 * number, "category_id": 1}
        for name, people in PEOPLE.items()
        for number, (box, _) in enumerate(people)
    ]
    content.append({"image_id": 12, "bbox": [0, 0, 9, 9], "score": 0.2, "category_id": 1})
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return tmp_path / "boxes.json"


def assert_found(joints, spots, within):
    for joint, spot in zip(joints, spots, strict=True):
        assert np.abs(np.array([joint["x"], joint["y"]]) - spot).max() <= within, (joint, spot)


def test_several_people_in_pictures(bnnlight, model, photos, boxes, tmp_path):
    code, out, err = bnnlight("predict", photos, "--model", model, "--boxes", boxes, "--batch_size", 2)
    assert code == 0, err
    assert "boxes left out: 1 below --min_box_score 0.5\n" in out
    assert "2 images, 3 people: predictions/predictions.json and a picture for each beside it" in out
    content = json.loads((tmp_path / "predictions/predictions.json").read_text())
    check_schema(content)
    assert content["version"] == 1 and content["task"] == "pose"
    assert content["skeleton"] == {"joints": list(NAMES), "limbs": [[0, 1], [1, 2]], "flip_pairs": [[0, 1]]}
    assert [Path(entry["image"]).name for entry in content["images"]] == ["12.png", "7.png"]
    for entry in content["images"]:
        name = Path(entry["image"]).name
        assert (entry["image_id"], entry["width"], entry["height"]) == (int(name[:-4]), 240, 160)
        for number, (person, (box, spots)) in enumerate(zip(entry["people"], PEOPLE[name], strict=True)):
            assert person["box"] == list(box) and person["category_id"] == 1
            # 64 px of the crop are 1.5 × the longer side; half a spot and half such a pixel
            assert_found(person["joints"], spots, 3 + 1.5 * max(box[2:]) / 64)
            assert [joint["joint"] for joint in person["joints"]] == list(NAMES)
            assert person["box_score"] == pytest.approx(0.9 - 0.1 * number)
            assert person["score"] == pytest.approx(0.7 * person["box_score"], abs=0.01)
        drawn = np.asarray(Image.open(tmp_path / "predictions" / entry["picture"]))
        assert drawn.shape == (160, 240, 3)
        assert (drawn != np.asarray(Image.open(photos / name))).any()
    # most boxes at once, whatever picture they are of
    assert max(Engine.batches) == 2 and sum(Engine.batches) == 3


def test_padding_is_that_of_the_manifest_or_the_option(bnnlight, model, photos, tmp_path, monkeypatch):
    sides = []

    def cut_and_keep(image, center, side_px, *rest):
        sides.append(side_px)
        return cut_out(image, center, side_px, *rest)

    monkeypatch.setattr("bnnlight.deploy.answers.cut_out", cut_and_keep)
    command = ("predict", photos / "7.png", "--model", model, "--boxes", "20,30,60,90", "--overwrite")
    for more in ((), ("--box_padding", 2)):
        code, _, err = bnnlight(*command, *more)
        assert code == 0, err
    assert sides == [1.5 * 90, 2 * 90]
    (person,) = json.loads((tmp_path / "predictions/predictions.json").read_text())["images"][0]["people"]
    assert person["score"] == pytest.approx(0.7, abs=0.01) and "box_score" not in person


def test_without_boxes_the_picture_is_the_box(bnnlight, model, photos, tmp_path):
    code, out, err = bnnlight("predict", photos, "--model", model)
    assert code == 0, err
    assert "2 images: predictions/predictions.json" in out
    content = json.loads((tmp_path / "predictions/predictions.json").read_text())
    check_schema(content)
    (person,) = content["images"][0]["people"]
    assert person["box"] == [-0.5, -0.5, 240, 160] and "image_id" not in content["images"][0]
    assert_found(person["joints"], PEOPLE["12.png"][0][1], 3 + 240 / 64)
    # the runtime gives what it always gave
    (answer,) = Runtime(model).predict([Image.open(photos / "12.png")])
    assert answer == {"joints": person["joints"]}


def test_the_runtime_takes_boxes(model, photos):
    pictures = [Image.open(photos / name) for name in PEOPLE]
    first, second = Runtime(model).predict(pictures, boxes=[[PEOPLE["7.png"][1][0]], []])
    assert second == {"people": []}
    assert_found(first["people"][0]["joints"], PEOPLE["7.png"][1][1], 3 + 120 / 64)
    for boxes, part in (
        ([[]], "1 lists of boxes are given for 2 pictures"),
        ([[], [[0, 0, 1, 0]]], "picture 1: box 0 is 1×0 px"),
    ):
        with pytest.raises(ValueError, match=part):
            Runtime(model).predict(pictures, boxes=boxes)
    for padding in (0, float("nan")):
        with pytest.raises(ValueError, match="box_padding is"):
            Runtime(model).predict(pictures, boxes=[[], []], box_padding=padding)


def test_results_that_pycocotools_evaluates(bnnlight, model, photos, boxes, tmp_path):
    code, out, err = bnnlight("predict", photos, "--model", model, "--boxes", boxes, "--format", "coco")
    assert code == 0, err
    assert "2 images, 4 people: predictions/predictions.json\n" in out and "left out" not in out
    assert [file.name for file in (tmp_path / "predictions").iterdir()] == ["predictions.json"]
    results = json.loads((tmp_path / "predictions/predictions.json").read_text())
    assert {*results[0]} == {"image_id", "category_id", "keypoints", "score"} and len(results[0]["keypoints"]) == 9
    # a picture without boxes needs no id: the annotations do not have it
    listed = [{"id": int(name[:-4]), "file_name": name} for name in PEOPLE]
    (tmp_path / "val.json").write_text(json.dumps({"images": listed}))
    Image.new("RGB", (9, 9)).save(photos / "other.png")
    more = ("--boxes", boxes, "--annotations", tmp_path / "val.json", "--format", "coco", "--output", tmp_path / "out")
    code, out, err = bnnlight("predict", photos, "--model", model, *more)
    assert code == 0, err
    assert "3 images, 4 people" in out
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == results
    (photos / "other.png").unlink()
    # an earlier answer of this form is replaced too, and one of its pictures is nobody's
    code, _, err = bnnlight("predict", photos, "--model", model, "--boxes", boxes, "--format", "coco", "--overwrite")
    assert code == 0, err
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    people = [(int(name[:-4]), *person) for name, some in PEOPLE.items() for person in some]
    truth = {
        "images": [{"id": int(name[:-4]), "file_name": name, "width": 240, "height": 160} for name in PEOPLE],
        "categories": [{"id": 1, "name": "person", "keypoints": list(NAMES)}],
        "annotations": [
            {
                **{"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0, "num_keypoints": 3},
                **{"bbox": list(box), "area": box[2] * box[3]},
                "keypoints": [value for x, y in spots for value in (x, y, 2)],
            }
            for number, (image_id, box, spots) in enumerate(people, 1)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    reference = COCO(tmp_path / "truth.json")
    evaluation = COCOeval(reference, reference.loadRes(str(tmp_path / "predictions/predictions.json")), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.full(3, 0.2)
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        step()
    # all are found, and the fourth box, of nobody, has a low score
    assert evaluation.stats[1] == pytest.approx(1) and evaluation.stats[6] == pytest.approx(1)


def test_errors_in_one_line_and_nothing_written(bnnlight_error, model, photos, boxes, tmp_path, monkeypatch):
    (tmp_path / "wrong.json").write_text(json.dumps([{"image_id": 7, "bbox": [500, 0, 9, 9], "score": 1}]))
    command = ("predict", photos, "--model", model)
    for options, part in (
        (("--boxes", tmp_path / "wrong.json"), "wrong.json: entry 1 of 1: the box [500, 0, 9, 9] lies outside"),
        (("--boxes", "1,2,3,4"), "a box in one picture, and 2 are given"),
        (("--boxes", boxes, "--box_padding", 0), "--box_padding is 0"),
        (("--boxes", boxes, "--min_box_score", "nan"), "--min_box_score is nan"),
        (("--min_box_score", 0.1), "--min_box_score needs --boxes"),
        (("--format", "yaml"), "--format"),
    ):
        code, line = bnnlight_error(*command, *options)
        assert code == 2 and part in line, line
    monkeypatch.setitem(sys.modules, "bnnlight.deploy.formats.onnx", SimpleNamespace(OnnxEngine=Classifier))
    for options, part in ((("--boxes", boxes), "--boxes is for"), (("--format", "coco"), "--format coco is for")):
        code, line = bnnlight_error(*command, *options)
        assert code == 2 and part in line and f"{model} names classes" in line
    with pytest.raises(ValueError, match="this one names classes"):
        Runtime(model).predict([Image.open(photos / "7.png")], boxes=[[]])
    assert not (tmp_path / "predictions").exists()


def test_classes_have_the_schema_too(bnnlight, model, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bnnlight.deploy.formats.onnx", SimpleNamespace(OnnxEngine=Classifier))
    code, _, err = bnnlight("predict", photos, "--model", model)
    assert code == 0, err
    content = json.loads((tmp_path / "predictions/predictions.json").read_text())
    check_schema(content)
    with pytest.raises(AssertionError):
        check_schema({**content, "task": "pose"})
    del content["images"][0]["width"]
    with pytest.raises(AssertionError):
        check_schema(content)


def check_schema(content):
    """Checks it by the words that the schema uses, and by jsonschema where it is installed."""
    faults = list(schema_faults(content, SCHEMA))
    if find_spec("jsonschema"):
        from jsonschema import Draft202012Validator

        Draft202012Validator.check_schema(SCHEMA)
        assert Draft202012Validator(SCHEMA).is_valid(content) == (not faults)
    assert not faults, faults


KINDS = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}


def schema_faults(value, schema, path=""):
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    kinds = schema.get("type", [])
    if kinds and not any(isinstance(value, KINDS[kind]) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{path} is no {kinds}"
        return
    if value != schema.get("const", value) or value not in schema.get("enum", [value]):
        yield f"{path} is {value}"
    if isinstance(value, dict):
        yield from (f"{path} lacks {name}" for name in schema.get("required", []) if name not in value)
        for name, inside in schema.get("properties", {}).items():
            if name in value:
                yield from schema_faults(value[name], inside, f"{path}/{name}")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", np.inf):
            yield f"{path} has {len(value)} items"
        for index, item in enumerate(value):
            yield from schema_faults(item, schema.get("items", {}), f"{path}/{index}")
    if isinstance(value, int | float) and not schema.get("minimum", -np.inf) <= value <= schema.get("maximum", np.inf):
        yield f"{path} is {value}"
    if "oneOf" in schema and sum(not [*schema_faults(value, one, path)] for one in schema["oneOf"]) != 1:
        yield f"{path} is none of the kinds, or several"
