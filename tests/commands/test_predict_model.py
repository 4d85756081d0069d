"""`bnnlight predict --model` with a shipped model: the same as with the checkpoint, without the code that trains."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from fixtures.coco_files import coco_content, ready, write_coco
from PIL import Image

from bnnlight.data import DigitsDataModule
from bnnlight.data.keypoints.people import draw_person
from bnnlight.deploy import Runtime
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.runtime import find_model
from bnnlight.experiment.trained.predictor import load_run
from bnnlight.imaging.pose_crop import MEAN, STD

TINY_POSE = (
    *("--data.num_train=8", "--data.num_val=4", "--data.num_test=4", "--data.batch_size=4", "--data.num_workers=0"),
    *("--model.backbone.features=16", "--model.backbone.depth=1", "--trainer.max_steps=2"),
)


@pytest.fixture
def photos(tmp_path):
    """A folder with pictures of several kinds, one marked as lying on its side."""
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for seed in range(3):
        person = Image.fromarray(draw_person(0, seed).image[:, : 120 + 30 * seed])
        person.save(folder / f"{seed}.png", **({"exif": exif} if seed == 1 else {}))
    person.convert("L").resize((9, 11)).save(folder / "grey.png")
    person.quantize(8).save(folder / "palette.png")
    return folder


def results(folder):
    record = json.loads((folder / "predictions.json").read_text())["images"]
    return record, [np.asarray(Image.open(folder / entry["picture"])) for entry in record]


def leaves(value, path=()):
    """Every number and text of a JSON with its place."""
    if isinstance(value, dict | list):
        for key, inside in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inside, (*path, key))
    else:
        yield path, value


def assert_same(bnnlight, photos, tmp_path, checkpoint, shipped, *options):
    outputs = []
    for name, model in (("checkpoint", checkpoint), ("shipped", shipped)):
        command = ("predict", photos, "--model", model, "--output", tmp_path / name, "--overwrite")
        code, out, err = bnnlight(*command, *options)
        assert code == 0, err
        assert re.match(rf"5 images(, \d+ people)?: {tmp_path / name}/predictions.json", out.splitlines()[-1])
        outputs.append(results(tmp_path / name))
    (expected, drawn_expected), (found, drawn) = outputs
    expected, found = dict(leaves(expected)), dict(leaves(found))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        assert found[path] == (pytest.approx(value, rel=1e-4, abs=1e-3) if isinstance(value, float) else value), path
    for one, other in zip(drawn, drawn_expected, strict=True):
        assert one.shape == other.shape
        # a joint may move by a thousandth of a pixel
        assert np.mean(one != other) < 0.002
    return found


def test_classes_are_those_of_the_checkpoint(bnnlight, digits_run, ship, photos, tmp_path):
    checkpoint = digits_run[0] / "checkpoints/best.ckpt"
    task, _ = load_run(checkpoint, None)
    form = DigitsDataModule().image_format
    told = PictureInput(form.num_channels, form.image_size, form.mean, form.std, form.resize_px)
    folder = ship(task.backbone, Manifest("classification", "bnnlight.backbones.ResNet", told, tuple("0123456789")))
    options = ("--top", 3, "--num_threads", torch.get_num_threads(), "--batch_size", 2)
    found = assert_same(bnnlight, photos, tmp_path, checkpoint, folder, *options)
    assert found[0, "picture"] == "0.png" and (0, "classes", 2, "class") in found and (0, "classes", 3) not in found
    assert ship.batches == [2, 2, 1] and ship.threads == [torch.get_num_threads()]


def test_joints_are_those_of_the_checkpoint(bnnlight, configs, quick, ship, photos, tmp_path):
    command = ("fit", "--config", configs / "hg_people.yaml", *TINY_POSE, *quick, f"--run_dir={tmp_path / 'run'}")
    code, _, err = bnnlight(*command)
    assert code == 0, err
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    task, _ = load_run(checkpoint, None)
    told = PictureInput(3, 96, tuple(MEAN.tolist()), tuple(STD.tolist()))
    flags = {"sigmoid": task.loss == "bce", "flip_test": task.flip_test}
    manifest = Manifest("pose", "bnnlight.backbones.StackedHourglass", told, skeleton=task.skeleton, **flags)
    shipped = find_model(ship(task.backbone, manifest))
    found = assert_same(bnnlight, photos, tmp_path, checkpoint, shipped)
    assert found[1, "people", 0, "joints", 15, "joint"] == task.skeleton.joints[15]
    # where some joints are drawn and some are not, at the widest gap between confidences
    sure = np.sort([value for place, value in found.items() if place[-1] == "confidence"])
    widest = np.diff(sure).argmax()
    middle = sure[widest : widest + 2].mean()
    assert_same(bnnlight, photos, tmp_path, checkpoint, shipped, "--min_confidence", middle)
    # and of people in boxes, some of which reach over the edge
    boxes = [
        {"file_name": name, "bbox": [4 * number - 9, 3, 40 + 20 * number, 60 + number / 7], "score": 0.6 + number / 10}
        for name in ("0.png", "2.png")
        for number in range(3)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ("--boxes", tmp_path / "boxes.json", "--batch_size", 2)
    found = assert_same(bnnlight, photos, tmp_path, checkpoint, shipped, *options)
    assert found[0, "people", 2, "box_score"] == 0.8 and (1, "people", 0, "box", 0) not in found
    assert found[2, "people", 1, "box", 0] == -5


def test_a_network_of_coco_files_is_shipped_with_its_joints_and_padding(bnnlight, configs, quick, tmp_path):
    content = coco_content()
    content["categories"][0]["keypoints"][2] = "right_eye <&> '*'"
    root = write_coco(tmp_path / "own", content)
    files = [f"--data.{name}_annotations=people.json" for name in ("train", "val")]
    small = ("--model.backbone.num_joints=5", "--model.backbone.features=16", "--model.backbone.depth=1")
    data = (f"--data.root={root}", *files, "--data.images=.", "--data.num_workers=0", "--data.box_padding=1.4")
    pairs = "--data.flip_pairs=[[1,2],[3,4]]"
    sigmas = "--data.sigmas=[0.1,0.2,0.3,0.4,0.5]"
    command = ("fit", "--config", configs / "hg_coco_small.yaml", *data, pairs, sigmas, *small, *quick)
    code, _, err = bnnlight(*command, "--trainer.max_steps=2", f"--run_dir={tmp_path / 'run'}")
    assert code == 0, err
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    code, _, err = bnnlight("export", "--ckpt_path", checkpoint, "--format", "packed", "--output", tmp_path / "model")
    assert code == 0, err
    manifest = Runtime(tmp_path / "model").manifest
    assert manifest.skeleton.joints == ("nose", "left_eye", "right_eye <&> '*'", "left_hip", "right_hip")
    assert manifest.skeleton.flip_pairs == ((1, 2), (3, 4)) and manifest.skeleton.torso == ()
    assert manifest.skeleton.sigmas == (0.1, 0.2, 0.3, 0.4, 0.5) and manifest.input.box_padding == 1.4
    assert r"right_eye \<&\> '\*'" in (tmp_path / "model/README.md").read_text()
    # the annotated boxes: ids of pictures are told by the annotations; the square is that of training
    boxes = [{key: entry[key] for key in ("image_id", "bbox", "category_id")} for entry in content["annotations"]]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ("--boxes", tmp_path / "boxes.json", "--annotations", root / "people.json", "--format", "coco")
    outputs = []
    for name, model in (("a", checkpoint), ("b", tmp_path / "model")):
        code, _, err = bnnlight("predict", root, "--model", model, *options, "--output", tmp_path / name)
        assert code == 0, err
        outputs.append(json.loads((tmp_path / name / "predictions.json").read_text()))
    one, other = outputs
    assert sorted(entry["image_id"] for entry in one) == [10, 10, 11, 11]
    assert dict(leaves(one)) == pytest.approx(dict(leaves(other)), rel=1e-4, abs=1e-3)
    task, _ = load_run(checkpoint, None)
    batch = next(iter(ready(root, "validate", box_padding=1.4, image_size=96, batch_size=4).val_dataloader()))
    task.eval()
    with torch.inference_mode():
        wanted = task.predict_step(batch, 0)["joints"].numpy()
    found = np.array([entry["keypoints"] for entry in one]).reshape(4, 5, 3)[..., :2]
    # as they stand in the file: the first and the third person are in the first picture
    np.testing.assert_allclose(found[[0, 2, 1, 3]], wanted, atol=1e-3)


def test_the_old_name_of_the_option_takes_checkpoints_of_any_name(bnnlight, digits_run, photos, tmp_path):
    copy = tmp_path / "weights.pt"
    copy.write_bytes((digits_run[0] / "checkpoints/best.ckpt").read_bytes())
    options = ("--config", digits_run[0] / "config.yaml")
    code, _, err = bnnlight("predict", photos / "0.png", "--ckpt_path", copy, *options)
    assert code == 0, err
    assert len(results(tmp_path / "predictions")[0][0]["classes"]) == 5


def test_usage_errors(bnnlight_error, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.bin").touch()
    for args, parts in (
        ((), ("--model", "--ckpt_path", "required")),
        (("--model", "a", "--ckpt_path", "b"), ("--ckpt_path", "--model", "not allowed")),
        (("--model", tmp_path / "none"), ("no such model", tmp_path / "none")),
        (("--model", tmp_path / "none.ckpt"), ("checkpoint not found", tmp_path / "none.ckpt")),
        (("--model", tmp_path / "empty"), ("no shipped model", tmp_path / "empty", "model.onnx")),
        (("--model", tmp_path / "model.bin"), (tmp_path / "model.bin", ".safetensors")),
        (("--model", tmp_path / "empty", "--config", "c.yaml"), ("--config", "checkpoint")),
        (("--model", tmp_path / "empty", "--num_threads", "0"), ("--num_threads is 0", "at least 1")),
        (("--model", tmp_path / "empty", "--batch_size", "0"), ("--batch_size is 0", "at least 1")),
    ):
        code, line = bnnlight_error("predict", photos, *args)
        assert code == 2
        for part in parts:
            assert str(part) in line, line
    assert not (tmp_path / "predictions").exists()


# an engine in numpy, in the place of ONNX Runtime's: the logits are the mean colour
TORCH_FREE = """
import sys
from types import SimpleNamespace
from bnnlight.cli import main
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.runtime import find_model

class Engine:
    told = PictureInput(3, 8, (0.5,) * 3, (0.25,) * 3, 8)
    manifest = Manifest("classification", "x.Y", told, ("red", "green", "blue"))
    input_shape = 3, 8, 8
    def __init__(self, file, num_threads):
        assert num_threads == 2
    def __call__(self, images):
        return images.mean((2, 3))

sys.modules["bnnlight.deploy.formats.onnx"] = SimpleNamespace(OnnxEngine=Engine)
code = main(sys.argv[1:])
print(*sorted(sys.modules), sep="\\n")
sys.exit(code)
"""


@pytest.mark.parametrize("model", ["exported", "gone"])
def test_nothing_that_trains_is_imported(tmp_path, model):
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported/model.onnx").touch()
    Image.new("RGB", (9, 20), (10, 250, 30)).save(tmp_path / "green.png")
    command = [sys.executable, "-c", TORCH_FREE, "predict", "green.png", "--model", model, "--num_threads", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    loaded = set(done.stdout.splitlines())
    assert {"bnnlight.commands.predict", "bnnlight.deploy.runtime"} <= loaded
    heavy = {"torch", "torchvision", "lightning", "wandb", "tensorly", "jsonargparse", "matplotlib", "scipy", "sklearn"}
    assert heavy & loaded == set()
    if model == "gone":
        assert done.returncode == 2 and "no such model: gone" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    (entry,), _ = results(tmp_path / "predictions")
    # logits are (value / 255 - 0.5) / 0.25; softmax by hand
    powers = np.exp((np.array([250, 30, 10]) / 255 - 0.5) / 0.25)
    assert [c["class"] for c in entry["classes"]] == ["green", "blue", "red"]
    assert [c["probability"] for c in entry["classes"]] == pytest.approx(powers / powers.sum(), rel=1e-5)
