"""Pictures from arrays and photographs held any way.

Files that cannot be read: `tests/data/classes/test_image_folder.py`.
"""

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from bnnlight.data.keypoints.pictures import read_picture
from bnnlight.imaging.reading import as_grey_or_rgb, as_picture, load_rgb, turned, unreadable, upright

COLOURS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
# how a picture is stored for each value of EXIF's orientation: the rows and columns of what is seen
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


@pytest.mark.parametrize("orientation", STORED)
def test_a_photograph_is_turned_as_it_was_held(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](COLOURS))
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(upright(image), COLOURS)
        # the picture itself is left as it was
        np.testing.assert_array_equal(np.asarray(image), stored)
        np.testing.assert_array_equal(upright(image), COLOURS)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_a_turned_picture_keeps_its_mode_and_is_not_turned_again(mode):
    seen = Image.fromarray(COLOURS * 14).convert(mode)
    stored = seen.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.info["exif"] = exif.tobytes()
    found = turned(stored)
    assert found.mode == mode and stored.size == (2, 3) and found.size == (3, 2)
    np.testing.assert_array_equal(found.convert("RGB"), seen.convert("RGB"))
    assert turned(found) is found
    np.testing.assert_array_equal(upright(found), seen.convert("RGB"))


def test_a_tiff_file_is_turned_once(tmp_path):
    stored = np.ascontiguousarray(STORED[6](COLOURS))
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo={0x0112: 6})
    with Image.open(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(upright(image), COLOURS)
    np.testing.assert_array_equal(upright(load_rgb(tmp_path / "a.tif")), COLOURS)


@pytest.mark.parametrize("value", [0, 9, 65535, "6", (6, 6), None, b"\x06"])
def test_an_orientation_that_is_none_turns_nothing(value, monkeypatch):
    image = Image.fromarray(COLOURS)
    monkeypatch.setattr(image, "getexif", lambda: {0x0112: value})
    assert turned(image) is image


@pytest.mark.parametrize("error", [SyntaxError, KeyError, OSError, ValueError])
def test_exif_data_that_cannot_be_read_turn_nothing(error, monkeypatch):
    image = Image.fromarray(COLOURS)

    def damaged():
        raise error("damaged")

    monkeypatch.setattr(image, "getexif", damaged)
    np.testing.assert_array_equal(upright(image), COLOURS)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_grey_of_16_bits_is_read_as_8(tmp_path, ending):
    values = np.arange(65536, dtype=np.uint16)[::16].reshape(64, 64)
    file = tmp_path / f"a.{ending}"
    Image.fromarray(values).save(file, **({"transparency": 40_000} if ending == "png" else {}))
    found = np.asarray(load_rgb(file))
    np.testing.assert_array_equal(found, np.repeat((values // 256)[..., None], 3, axis=2))
    # as pictures of poses are read for training
    np.testing.assert_array_equal(read_picture(file, 64, image_size=64)[0], found)
    with Image.open(file) as opened:
        np.testing.assert_array_equal(upright(as_picture(opened)), found)


def test_grey_of_16_bits_is_turned_as_its_tag_says(tmp_path):
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) << 8
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(upright(load_rgb(tmp_path / "a.png"))[..., 0], [[3, 0], [4, 1], [5, 2]])
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(upright(opened)[..., 0], [[3, 0], [4, 1], [5, 2]])


@pytest.mark.parametrize("ending", ["png", "webp", "gif", "tif", "png of a palette", "png of one colour"])
def test_what_is_transparent_is_seen_on_white(tmp_path, ending):
    """A red logo on what is transparent, black under it: by class networks, `predict` and training of pose alike."""
    file = tmp_path / f"logo.{ending.split()[0]}"
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:6, 2:6] = 255, 0, 0, 255
    expected = np.full((8, 8, 3), 255, np.uint8)
    expected[2:6, 2:6] = 255, 0, 0
    picture, options = Image.fromarray(pixels), {"lossless": True} if ending == "webp" else {}
    if "palette" in ending:
        picture = picture.quantize(4)
    if "colour" in ending:
        picture, options = Image.fromarray(pixels[..., :3].copy()), {"transparency": (0, 0, 0)}
    picture.save(file, **options)
    assert np.array_equal(np.asarray(load_rgb(file)), expected)
    with Image.open(file) as opened:  # as it is handed to a Runtime
        assert np.array_equal(upright(opened), expected)
        assert np.asarray(as_grey_or_rgb(opened, 1))[0, 0] == 255
    if ending != "tif":
        assert np.array_equal(read_picture(file, 8, 8)[0], expected)


def test_a_transparent_photograph_is_turned_as_its_tag_says(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    picture.save(tmp_path / "x.png", exif=exif)
    assert turned(load_rgb(tmp_path / "x.png")).size == (2, 4)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_of_several_pictures_in_a_file_the_first_is_read(tmp_path, ending):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("blue", "red"))
    first.save(tmp_path / f"x.{ending}", save_all=True, append_images=[second], duration=100)
    assert load_rgb(tmp_path / f"x.{ending}").getpixel((3, 3))[2] > 240


def test_prints_and_deep_colours_are_read(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    red, green, blue = load_rgb(tmp_path / "print.jpg").getpixel((3, 3))
    assert red > 240 and max(green, blue) < 15
    deep = np.full((8, 8, 3), (0x1234, 0x5678, 0x9ABC), np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    assert load_rgb(tmp_path / "deep.png").getpixel((3, 3)) == (0x12, 0x56, 0x9A)


def test_arrays_are_pictures():
    np.testing.assert_array_equal(np.asarray(as_picture(COLOURS)), COLOURS)
    assert as_picture(COLOURS[..., 0]).mode == "L"
    image = Image.new("CMYK", (2, 2))
    assert as_picture(image) is image


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        (np.zeros((4, 4, 3), np.float32), "(4, 4, 3) of float32"),
        (np.zeros((3, 4, 4), np.uint8), "(3, 4, 4) of uint8"),
        (np.zeros((4, 4, 4), np.uint8), "(4, 4, 4)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros(4, np.uint8), "(4,)"),
        ("cat.jpg", "str"),
        (Image.fromarray(np.zeros((4, 4), np.int32)), "32 bits"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "32 bits"),
    ],
)
def test_what_is_no_picture(wrong, part, check_one_line):
    with pytest.raises(ValueError) as error:
        as_picture(wrong)
    check_one_line(error, part)


@pytest.mark.parametrize("relative", [False, True])
def test_the_topmost_missing_folder_is_named(tmp_path, monkeypatch, check_one_line, relative):
    monkeypatch.chdir(tmp_path)
    base = Path() if relative else tmp_path
    (base / "data").mkdir()
    with pytest.raises(OSError) as error:
        load_rgb(base / "data/mount/train/a.png")
    gone = base / "data/mount"
    check_one_line(error, f"no such file; the folder {gone} is gone, mount it again and resume")
    # that is not a fault of the file
    assert error.value.errno == errno.ENOENT
    (base / "data/mount/train").mkdir(parents=True)
    with pytest.raises(OSError) as error:
        load_rgb(base / "data/mount/train/a.png")
    check_one_line(error, "no such file; put it back")
    assert error.value.errno is None


@pytest.mark.parametrize(
    ("number", "fault", "advice"),
    [
        (errno.EMFILE, errno.EMFILE, "lower data.num_workers"),
        (errno.ESTALE, errno.ESTALE, "out of reach, mount /set again and resume"),
        (errno.EACCES, None, "allow reading it"),
        (errno.EIO, None, "replace or remove the file"),
    ],
)
def test_what_the_system_says_of_a_file(number, fault, advice):
    found = unreadable("/set/a.png", OSError(number, os.strerror(number), "/set/a.png"))
    # the name stands in the message once
    assert str(found).startswith(f"cannot read image /set/a.png: {os.strerror(number)}; ")
    assert advice in str(found)
    assert found.errno == fault


def test_memory_that_runs_out_is_no_damaged_file():
    with pytest.raises(cv2.error) as error:
        cv2.resize(np.zeros((1, 1), np.uint8), (2**30, 2**20))
    for own in (error.value, MemoryError()):
        with pytest.raises(MemoryError):
            unreadable("a.png", own)
