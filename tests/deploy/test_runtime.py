"""A shipped model in use, against the task it was made from."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from bnnlight.backbones import ResNet, StackedHourglass
from bnnlight.data.keypoints.transforms import PoseTransform
from bnnlight.data.loading.transforms import ImageFormat
from bnnlight.deploy import Runtime
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.runtime import FORMATS, find_model
from bnnlight.experiment.trained.classes import ClassPredictor
from bnnlight.experiment.trained.poses import PosePredictor
from bnnlight.imaging.pose_crop import MEAN, STD
from bnnlight.imaging.skeletons import LSP, MPII
from bnnlight.tasks import ClassificationTask, PoseTask

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def photos(count=5):
    """Pictures of several sizes, modes and orientations."""
    rng, made = np.random.default_rng(0), []
    for index in range(count):
        height, width = rng.integers(12, 90, 2)
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        image = image.convert(("RGB", "L", "RGBA", "P", "CMYK")[index % 5])
        image.info["exif"] = exif(1 + index % 8)
        made.append(image)
    return made


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def warmed_up(network, shape):
    """With batch norm's statistics of noise, so that activations spread as in a trained network."""
    for _ in range(5):
        network.train()(torch.randn(8, *shape))
    return network.eval()


def classifier(channels=3, resize_px=18, names=NAMES):
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.1, 0.2, 0.3)[:channels]
    backbone = warmed_up(ResNet([1, 1], 7, channels, width=0.125, stem="half"), (channels, 16, 16))
    task = ClassificationTask(backbone).eval()
    task.class_names = list(names)
    told = PictureInput(channels, 16, mean, std, resize_px)
    transform = ImageFormat(channels, 16, mean, std, resize_px).eval_transform()
    return task, transform, Manifest("classification", "bnnlight.backbones.ResNet", told, names)


def pose_network(skeleton=MPII, loss="bce", flip_test=True, stacks=2):
    backbone = warmed_up(StackedHourglass(len(skeleton.joints), 16, stacks, depth=1), (3, 64, 64))
    task = PoseTask(backbone, loss=loss, flip_test=flip_test).eval()
    task.skeleton = skeleton
    told = PictureInput(3, 64, tuple(MEAN.tolist()), tuple(STD.tolist()))
    flags = {"sigmoid": loss == "bce", "flip_test": flip_test}
    manifest = Manifest("pose", "bnnlight.backbones.StackedHourglass", told, skeleton=skeleton, **flags)
    return task, PoseTransform(skeleton, 64), manifest


@pytest.mark.parametrize(("channels", "resize_px", "names"), [(3, 18, NAMES), (1, 16, NAMES), (3, 12, ())])
def test_classes_are_those_of_the_task(ship, channels, resize_px, names):
    task, transform, manifest = classifier(channels, resize_px, names)
    expected = ClassPredictor(task, transform, 3)(photos())
    found = Runtime(ship(task.backbone, manifest)).predict(photos(), top=3)
    # the pictures are told apart at all
    assert len({record["classes"][0]["probability"] for record in expected}) == 5
    for record, wanted in zip(found, expected, strict=True):
        assert [c["class"] for c in record["classes"]] == [c["class"] for c in wanted["classes"]]
        probabilities = [c["probability"] for c in wanted["classes"]]
        assert [c["probability"] for c in record["classes"]] == pytest.approx(probabilities, rel=1e-5)


@pytest.mark.parametrize("flip_test", [True, False])
@pytest.mark.parametrize("loss", ["bce", "mse", "awing"])
@pytest.mark.parametrize("skeleton", [MPII, LSP], ids=["MPII", "LSP"])
def test_joints_are_those_of_the_task(ship, skeleton, loss, flip_test):
    task, transform, manifest = pose_network(skeleton, loss, flip_test)
    expected = PosePredictor(task, transform)(photos())
    found = Runtime(ship(task.backbone, manifest)).predict(photos())
    for record, wanted in zip(found, expected, strict=True):
        assert [j["joint"] for j in record["joints"]] == list(skeleton.joints)
        for joint, right in zip(record["joints"], wanted["joints"], strict=True):
            assert [joint["x"], joint["y"]] == pytest.approx([right["x"], right["y"]], abs=1e-3)
            assert joint["confidence"] == pytest.approx(right["confidence"], rel=1e-4, abs=1e-6)
            assert 0 <= joint["confidence"] <= 1


def test_arrays_are_answered_as_the_pictures_that_they_are(ship):
    task, _, manifest = classifier()
    runtime = Runtime(ship(task.backbone, manifest))
    rgb, grey = (Image.fromarray(np.asarray(photo)) for photo in photos()[:2])
    assert (rgb.mode, grey.mode) == ("RGB", "L")
    assert runtime.predict([np.asarray(rgb), np.asarray(grey)]) == runtime.predict([rgb, grey])
    # four dimensions are several pictures
    assert runtime.predict(np.asarray(rgb)[None]) == runtime.predict([rgb])


@pytest.mark.parametrize("kind", ["classes", "joints"])
def test_photographs_are_looked_at_upright(ship, kind):
    task, _, manifest = classifier() if kind == "classes" else pose_network()
    runtime = Runtime(ship(task.backbone, manifest))
    upright = Image.fromarray(np.asarray(photos()[0]))
    lying, marked = (upright.transpose(Image.Transpose.ROTATE_90) for _ in range(2))
    marked.info["exif"] = exif(6)
    wanted, otherwise, found = runtime.predict([upright, lying, marked])
    assert otherwise != wanted and found == wanted


def test_pictures_are_answered_in_order_in_batches(ship):
    task, _, manifest = classifier()
    runtime = Runtime(ship(task.backbone, manifest), num_threads=3)
    found = runtime.predict(photos(7), batch_size=3)
    assert ship.batches == [3, 3, 1] and ship.threads == [3]
    for record, picture in zip(found, photos(7), strict=True):
        (alone,) = runtime.predict([picture])
        assert [c["class"] for c in record["classes"]] == [c["class"] for c in alone["classes"]]
    assert runtime.predict([]) == []


def test_calling_it_gives_the_bare_output(ship):
    task, _, manifest = classifier()
    file = find_model(ship(task.backbone, manifest))
    runtime = Runtime(str(file))
    images = torch.randn(3, 3, 16, 16)
    assert (runtime.file, runtime.input_shape, runtime.manifest) == (file, (3, 16, 16), manifest)
    assert runtime.format == FORMATS[file.suffix][0]
    with torch.no_grad():
        np.testing.assert_allclose(runtime(images.numpy()), task.backbone(images).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        (Image.new("RGB", (9, 9)), ("put a single one into a list",)),
        (np.zeros((9, 9, 3), np.uint8), ("put a single one into a list",)),
        ([Image.new("RGB", (9, 9)), np.zeros((9, 9, 3), np.float32)], ("picture 1: ", "float32", "uint8")),
        ([Image.new("RGB", (9, 9))] * 2 + [Image.new("I", (9, 9))], ("picture 2: ", "32 bits")),
    ],
)
def test_what_cannot_be_answered(ship, check_one_line, wrong, parts):
    task, _, manifest = classifier()
    runtime = Runtime(ship(task.backbone, manifest))
    with pytest.raises(ValueError) as error:
        runtime.predict(wrong, batch_size=1)
    check_one_line(error, *parts)


@pytest.mark.parametrize("options", [{"top": 0}, {"batch_size": 0}])
def test_numbers_below_one(ship, check_one_line, options):
    task, _, manifest = classifier()
    runtime = Runtime(ship(task.backbone, manifest))
    with pytest.raises(ValueError) as error:
        runtime.predict(photos(), **options)
    check_one_line(error, f"{next(iter(options))} is 0", "at least 1")
    with pytest.raises(ValueError) as error:
        Runtime(runtime.file, num_threads=0)
    check_one_line(error, "num_threads is 0", "at least 1")


@pytest.mark.parametrize("kind", ["classes", "joints"])
def test_a_network_that_is_not_what_its_manifest_says(ship, check_one_line, kind):
    task, _, manifest = classifier(names=NAMES[:5]) if kind == "classes" else pose_network()
    backbone = task.backbone if kind == "classes" else warmed_up(StackedHourglass(14, 16, 1, depth=1), (3, 64, 64))
    runtime = Runtime(ship(backbone, manifest))
    with pytest.raises(ValueError) as error:
        runtime.predict(photos())
    check_one_line(error, "(N, 5)" if kind == "classes" else "(N, stacks, 16, h, w)", "manifest")


def test_an_input_that_is_not_what_its_manifest_says(tmp_path, monkeypatch, check_one_line):
    _, _, manifest = classifier()
    engine = SimpleNamespace(manifest=manifest, input_shape=(3, 16, 17))
    module = SimpleNamespace(OnnxEngine=lambda file, num_threads: engine)
    monkeypatch.setitem(sys.modules, "bnnlight.deploy.formats.onnx", module)
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ValueError) as error:
        Runtime(tmp_path)
    check_one_line(error, tmp_path / "model.onnx", "(3, 16, 17)", "3 channels of 16 px")


def test_places_without_a_model(tmp_path, check_one_line):
    for path, kind, parts in (
        (tmp_path / "none", FileNotFoundError, [tmp_path / "none"]),
        (tmp_path, FileNotFoundError, [tmp_path, "model.safetensors", "model.xml", "model.onnx"]),
        (tmp_path / "model.bin", ValueError, [tmp_path / "model.bin", ".xml"]),
    ):
        (tmp_path / "model.bin").touch()
        with pytest.raises(kind) as error:
            Runtime(path)
        check_one_line(error, *parts)


def test_a_folder_with_several_models_asks_for_one(ship, check_one_line):
    task, _, manifest = classifier()
    folder = ship(task.backbone, manifest)
    (folder / "model.safetensors").touch()
    with pytest.raises(ValueError) as error:
        Runtime(folder)
    check_one_line(error, folder, "model.onnx, model.safetensors", "name one")
    assert Runtime(folder / "model.onnx").format == "onnx"
    # whatever the file is called
    other = (folder / "model.onnx").rename(folder / "Cats.ONNX")
    with pytest.raises(KeyError):
        # the stand-in knows files by name: it was reached
        Runtime(other)


@pytest.mark.parametrize("when", ["imported", "opened"])
def test_a_package_that_is_not_installed(tmp_path, monkeypatch, check_one_line, when):
    def lacking(*args):
        raise ModuleNotFoundError("No module named 'openvino'", name="openvino")

    if when == "opened":
        module = SimpleNamespace(OpenVINOEngine=lacking)
        monkeypatch.setitem(sys.modules, "bnnlight.deploy.formats.openvino", module)
    else:
        monkeypatch.setattr("bnnlight.deploy.runtime.import_module", lacking)
    (tmp_path / "model.xml").touch()
    with pytest.raises(ValueError) as error:
        Runtime(tmp_path)
    check_one_line(error, tmp_path / "model.xml", "openvino", "pip install 'bnnlight[deploy]'")
