"""`bnnlight predict`: pictures held any way or unreadable, and the folder that it writes."""

import errno
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bnnlight.deploy.manifest import Manifest, PictureInput

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}
# what a camera held otherwise stores of a picture, for each value of EXIF's orientation
STORED = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.transpose(1, 0, 2),
    6: lambda seen: seen.transpose(1, 0, 2)[::-1],
    7: lambda seen: seen[::-1, ::-1].transpose(1, 0, 2),
    8: lambda seen: seen.transpose(1, 0, 2)[:, ::-1],
}


class Engine:
    """An engine in numpy: the logits are the colour of the top left corner."""

    manifest = Manifest("classification", "x.Y", PictureInput(3, 8, (0.5,) * 3, (0.25,) * 3, 8), tuple(COLOURS))
    input_shape = 3, 8, 8

    def __init__(self, file, num_threads=None):
        pass

    def __call__(self, images):
        return images[:, :, 0, 0]


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bnnlight.deploy.formats.onnx", SimpleNamespace(OnnxEngine=Engine))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.onnx").touch()
    return tmp_path / "model"


def seen(corner="green", height=24, width=24):
    """A picture with one colour in the top left corner, and others elsewhere."""
    pixels = np.full((height, width, 3), COLOURS["red"], np.uint8)
    pixels[height // 2 :] = COLOURS["blue"]
    pixels[: height // 3, : width // 3] = COLOURS[corner]
    return pixels


def cut_off(file):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, format="JPEG")
    file.write_bytes(file.read_bytes()[:900])
    return file


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in zip("abc", COLOURS, strict=True):
        Image.fromarray(seen(colour)).save(folder / f"{name}.png")
    return folder


def answers(folder):
    record = json.loads((folder / "predictions.json").read_text())["images"]
    return {entry["image"].split("/")[-1]: entry["classes"][0]["class"] for entry in record}


def content(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_photographs_are_classified_and_drawn_upright(bnnlight, model, tmp_path):
    (tmp_path / "photos").mkdir()
    picture = seen(height=24, width=36)
    for orientation, store in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(store(picture))).save(tmp_path / f"photos/{orientation}.png", exif=exif)
    code, _, err = bnnlight("predict", tmp_path / "photos", "--model", model, "--top", 3)
    assert code == 0, err
    record = json.loads((tmp_path / "predictions/predictions.json").read_text())["images"]
    assert len(record) == 8
    for entry in record:
        assert entry["classes"] == record[0]["classes"]
        drawn = Image.open(tmp_path / "predictions" / entry["picture"])
        assert drawn.size[0] == 480 and drawn.getpixel((5, 5)) == COLOURS["green"]
        np.testing.assert_array_equal(drawn, Image.open(tmp_path / "predictions/1.png"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"nonsense", b"Exif\0\0II*"])
def test_damaged_exif_data_turn_nothing(bnnlight, model, tmp_path, exif):
    Image.fromarray(seen()).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    code, out, err = bnnlight("predict", "a.jpg", "--model", model)
    assert code == 0, err
    assert "1 image: " in out
    assert answers(tmp_path / "predictions") == {"a.jpg": "green"}


def test_what_cannot_be_read_is_named_and_the_others_are_answered(bnnlight, model, photos, tmp_path):
    bad = [cut_off(photos / "b2.jpg"), photos / "c2.png"]
    bad[1].write_text("no picture")
    # one batch has none that can be read
    code, out, err = bnnlight("predict", photos, "--model", model, "--batch_size", 1)
    assert code == 1
    lines = err.splitlines()
    for file, line in zip(bad, lines, strict=False):
        assert line.startswith(f"left out: cannot read image {file}: ")
    assert len(lines) == 3 and lines[2].startswith("bnnlight predict: error: 2 of 5 images could not be read")
    assert "predictions/errors.json" in lines[2]
    assert "3 images: predictions/predictions.json" in out
    assert answers(tmp_path / "predictions") == {"a.png": "red", "b.png": "green", "c.png": "blue"}
    errors = json.loads((tmp_path / "predictions/errors.json").read_text())
    assert [entry["image"] for entry in errors] == [*map(str, bad)]
    assert all(f"left out: {entry['error']}" == line for entry, line in zip(errors, lines, strict=False))
    assert {file.name for file in (tmp_path / "predictions").iterdir()} == {
        *("predictions.json", "errors.json", "a.png", "b.png", "c.png")
    }


def test_named_twice_answered_once_and_links_that_lead_nowhere_are_named(bnnlight, model, photos, tmp_path):
    (photos / "loop.png").symlink_to("loop.png")
    code, _, err = bnnlight("predict", photos / "b.png", photos, "--model", model, "--output", tmp_path / "out")
    assert code == 1 and list(answers(tmp_path / "out")) == ["b.png", "a.png", "c.png"]
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
    assert (
        f"named twice and taken once: {photos}/b.png" in err and f"left out: cannot read image {photos}/loop.png" in err
    )


def test_the_first_that_cannot_be_read_ends_it_where_that_is_asked_for(bnnlight_error, model, photos, tmp_path):
    bad = cut_off(photos / "b2.jpg")
    code, line = bnnlight_error("predict", photos, "--model", model, "--on_bad_image", "stop", "--batch_size", 2)
    assert code == 1 and str(bad) in line
    assert not (tmp_path / "predictions").exists()


def test_none_that_can_be_read(bnnlight_error, model, tmp_path):
    bad = cut_off(tmp_path / "a.jpg")
    code, line = bnnlight_error("predict", bad, "--model", model)
    assert code == 1 and "none of the 1 images can be read" in line and str(bad) in line
    assert not (tmp_path / "predictions").exists()


def test_a_fault_that_is_not_the_pictures_ends_it(bnnlight_error, model, photos, tmp_path, monkeypatch):
    def lost(file):
        error = OSError(f"cannot read image {file}: its file system is out of reach")
        error.errno = errno.ESTALE
        raise error

    monkeypatch.setattr("bnnlight.commands.predict.load_rgb", lost)
    code, line = bnnlight_error("predict", photos, "--model", model)
    assert code == 1 and "out of reach" in line
    assert not (tmp_path / "predictions").exists()


def test_an_earlier_answer_is_refused_or_replaced_whole(bnnlight, bnnlight_error, model, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    Image.fromarray(seen("blue")).save(out / "b.png")  # of the user's, named as an answer's picture would be
    mine = content(out)
    cut_off(photos / "d.jpg")
    command = ("predict", photos, "--model", model, "--output", out)
    assert bnnlight(*command)[0] == 1
    record = json.loads((out / "predictions.json").read_text())["images"]
    assert [entry["picture"] for entry in record] == ["a.png", "b-2.png", "c.png"]
    before = content(out)
    assert mine.items() <= before.items()
    code, line = bnnlight_error(*command)
    assert code == 2 and "predictions.json already exists" in line and "--overwrite" in line
    assert content(out) == before
    for file in photos.iterdir():
        if file.name != "b.png":
            file.unlink()
    code, _, err = bnnlight(*command, "--overwrite")
    assert code == 0, err
    assert answers(out) == {"b.png": "green"}
    assert {str(name) for name in content(out)} == {"notes.txt", "b.png", "b-2.png", "predictions.json"}
    assert mine.items() <= content(out).items()


def test_among_its_own_images(bnnlight, model, photos):
    inputs = content(photos)
    command = ("predict", photos, "--model", model, "--output", photos)
    for more in ((), ("--overwrite",), ("--overwrite",)):
        code, out, err = bnnlight(*command, *more)
        assert code == 0, err
        # its own pictures are no images to look at
        assert "3 images: " in out and len(answers(photos)) == 3
        assert inputs.items() <= content(photos).items()
        assert len(content(photos)) == 3 + 3 + 1
    # one that is named is, and stays
    code, _, err = bnnlight("predict", photos / "a-2.png", "--model", model, "--output", photos, "--overwrite")
    assert code == 0, err
    assert {str(name) for name in content(photos)} == {
        *("a.png", "b.png", "c.png", "a-2.png", "a-2-2.png", "predictions.json")
    }


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"image": "a"}]', "no JSON", '[{"picture": "../model/model.onnx"}]'])
def test_a_file_that_predict_did_not_write_is_left_alone(bnnlight_error, model, photos, tmp_path, text):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/predictions.json").write_text(text)
    code, line = bnnlight_error("predict", photos, "--model", model, "--overwrite")
    assert code == 2 and "was not written by bnnlight predict" in line
    assert content(tmp_path / "predictions") == {(tmp_path / "predictions.json").relative_to(tmp_path): text.encode()}


@pytest.mark.parametrize("name", ["../a.png", "notes.txt", "/etc/a.png", "..", 3, None])
def test_nothing_but_pictures_beside_it_is_removed(bnnlight, model, photos, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (tmp_path / "a.png").write_text("mine too")
    entries = [{"image": "a", "picture": name}]
    (out / "predictions.json").write_text(json.dumps({"version": 1, "images": entries} if name else entries))
    code, _, err = bnnlight("predict", photos, "--model", model, "--output", out, "--overwrite")
    assert code == 0, err
    assert (out / "notes.txt").read_text() == "mine" and (tmp_path / "a.png").read_text() == "mine too"
    assert len(answers(out)) == 3


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "No space left"), 1)])
@pytest.mark.parametrize("where", ["picture", "json"])
@pytest.mark.parametrize("earlier", [True, False])
def test_what_ends_in_the_middle_leaves_the_folder_as_it_was(
    bnnlight, model, photos, tmp_path, monkeypatch, error, code, where, earlier
):
    command = ("predict", photos, "--model", model)
    if earlier:
        assert bnnlight(*command)[0] == 0
        Image.fromarray(seen("blue")).save(photos / "d.png")
    before = content(tmp_path)
    if where == "picture":
        save, saved = Image.Image.save, []

        def fail(self, *args, **kwargs):
            saved.append(1)
            if len(saved) == 3:
                raise error
            save(self, *args, **kwargs)

        monkeypatch.setattr(Image.Image, "save", fail)
    else:

        def fail(*_):
            raise error

        monkeypatch.setattr("bnnlight.commands.predict.write_answer", fail)
    found, _, err = bnnlight(*command, "--overwrite")
    assert found == code, err
    assert content(tmp_path) == before
    assert (tmp_path / "predictions").exists() == earlier


@pytest.mark.parametrize("value", ["7", "-0.1", "nan", "1.001"])
def test_a_confidence_is_a_share(bnnlight_error, model, photos, tmp_path, value):
    code, line = bnnlight_error("predict", photos, "--model", model, f"--min_confidence={value}")
    assert code == 2 and "--min_confidence is " in line and "from 0 to 1" in line
    assert not (tmp_path / "predictions").exists()


def test_an_output_that_is_a_file(bnnlight_error, model, photos):
    code, line = bnnlight_error("predict", photos, "--model", model, "--output", photos / "a.png")
    assert code == 2 and "is a file" in line
