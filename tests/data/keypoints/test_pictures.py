import numpy as np
import pytest
from PIL import Image

from bnnlight.data.keypoints import pictures
from bnnlight.data.keypoints.pictures import picture_sizes, read_picture
from bnnlight.imaging.reading import load_rgb


def blob(width, height, x, y, sigma=30.0):
    """A bright red spot with its middle at (x, y), on black."""
    columns, rows = np.arange(width), np.arange(height)
    spot = np.exp(-((columns - x) ** 2 + (rows[:, None] - y) ** 2) / (2 * sigma**2))
    return (spot[..., None] * [255, 90, 30]).round().astype(np.uint8)


def centroid(pixels):
    weight = pixels[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


@pytest.mark.parametrize(("side_px", "shrink"), [(100, 1), (199, 1), (200, 2), (399, 2), (400, 4), (800, 8), (9999, 8)])
def test_a_box_of_so_many_pixels_is_read_so_small(tmp_path, side_px, shrink):
    Image.fromarray(blob(401, 303, 200, 150)).save(tmp_path / "a.jpg")
    pixels, found = read_picture(tmp_path / "a.jpg", side_px, image_size=100)
    assert found == shrink
    # the last, incomplete row and column are kept
    assert pixels.shape == (-(-303 // shrink), -(-401 // shrink), 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("size", [(400, 304), (401, 303), (407, 297)])
@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_pixels_lie_where_the_transform_expects_them(tmp_path, size, shrink, subsampling):
    x, y = 190.3, 148.8
    Image.fromarray(blob(*size, x, y)).save(tmp_path / "a.jpg", quality=97, subsampling=subsampling)
    pixels, found = read_picture(tmp_path / "a.jpg", shrink * 100, image_size=100)
    assert found == shrink
    # pixel i of the reduced picture covers the pixels from shrink·i to shrink·i + shrink - 1
    expected = (np.array([x, y]) + 0.5) / shrink - 0.5
    np.testing.assert_allclose(centroid(pixels), expected, atol=0.1 / shrink)


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_colours_are_rgb_at_every_size(tmp_path, shrink):
    Image.new("RGB", (64, 64), (200, 100, 20)).save(tmp_path / "a.JPEG", quality=97)
    pixels, _ = read_picture(tmp_path / "a.JPEG", shrink * 8, image_size=8)
    np.testing.assert_allclose(pixels.reshape(-1, 3), np.tile([200, 100, 20], (pixels.size // 3, 1)), atol=3)


def test_other_formats_are_read_in_full(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    pixels, shrink = read_picture(str(tmp_path / "a.png"), 9999, image_size=8)
    assert shrink == 1
    np.testing.assert_array_equal(pixels, array)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_any_usual_mode_gives_three_channels(tmp_path, mode):
    Image.new("RGB", (8, 6), (255, 0, 0)).convert(mode).save(tmp_path / "a.png")
    pixels, _ = read_picture(tmp_path / "a.png", 8, image_size=8)
    assert pixels.shape == (6, 8, 3)
    assert tuple(pixels[0, 0]) == ((76, 76, 76) if mode == "L" else (255, 0, 0))


@pytest.mark.parametrize("shrink", [1, 2])
def test_an_orientation_in_the_file_is_not_applied(tmp_path, shrink):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    Image.new("RGB", (40, 24)).save(tmp_path / "a.jpg", exif=exif)
    pixels, _ = read_picture(tmp_path / "a.jpg", shrink * 8, image_size=8)
    assert pixels.shape == (24 // shrink, 40 // shrink, 3)
    assert picture_sizes([tmp_path / "a.jpg"]).tolist() == [[40, 24]]


@pytest.mark.parametrize("shrink", [1, 4])
@pytest.mark.parametrize("how", ["missing", "empty", "text", "half", "all but the end"])
def test_unreadable_pictures_are_named(tmp_path, check_one_line, how, shrink):
    file = tmp_path / "a.jpg"
    if how != "missing":
        array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(array).save(file)
        content = file.read_bytes()
        cut = {"empty": b"", "text": b"not an image\n", "half": content[: len(content) // 2]}
        file.write_bytes(cut.get(how, content[:-100]))
    with pytest.raises(OSError) as error:
        read_picture(file, shrink * 16, image_size=16)
    advice = "no such file; put it back" if how == "missing" else "replace or remove the file"
    check_one_line(error, f"cannot read image {file}: ", advice)


def test_sizes_come_in_order(tmp_path, capfd):
    sizes = [(5 + i, 50 - i) for i in range(40)]
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for path, size in zip(paths, sizes, strict=True):
        Image.new("L", size).save(path)
    assert picture_sizes(paths).tolist() == [list(size) for size in sizes]
    assert picture_sizes([]).shape == (0, 2)
    assert capfd.readouterr() == ("", "")


def test_a_long_check_shows_a_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        Image.new("L", (5, 6)).save(path)
    monkeypatch.setattr(pictures, "_PATIENCE_S", 0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    picture_sizes(paths)
    assert "checking the pictures" in capsys.readouterr().err


def test_a_damaged_header_is_named(tmp_path, check_one_line):
    Image.new("L", (5, 6)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not an image")
    with pytest.raises(OSError) as error:
        picture_sizes([tmp_path / "a.png", tmp_path / "b.png"])
    check_one_line(error, f"cannot read image {tmp_path / 'b.png'}: ", "replace or remove the file")


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_that_is_too_large_is_refused_by_all_that_read_it(tmp_path, monkeypatch, check_one_line, ending):
    file = tmp_path / f"a.{ending}"
    Image.new("RGB", (400, 256)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400 * 256 / 2)
    for shrink in (1, 4):
        assert read_picture(file, shrink * 16, image_size=16)[0].size  # just as large as is allowed
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400 * 256 / 2 - 1)
    readers = (lambda: read_picture(file, 64, image_size=16), lambda: picture_sizes([file]), lambda: load_rgb(file))
    for read in readers:
        with pytest.raises(OSError) as error:
            read()
        check_one_line(error, f"cannot read image {file}: it has more than 0 million pixels; make it smaller")
        assert error.value.errno is None
