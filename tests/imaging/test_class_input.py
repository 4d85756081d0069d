"""A picture as a network's input, against torchvision to the last bit."""

import numpy as np
import pytest
from PIL import Image

from bnnlight.data.loading.transforms import ImageFormat
from bnnlight.imaging.class_input import class_input

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "transparent")


def picture(mode, size, seed=0):
    """Noise with edges: every grey level, and what a filter may round one way or the other."""
    width, height = size
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    array[: height // 2] //= 2
    image = Image.fromarray(array)
    if mode == "transparent":
        image = image.quantize(16)
        image.info["transparency"] = bytes(range(0, 256, 16))
        return image
    return image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)


def both(image, channels, size_px, resize_px):
    form = MEAN[:channels], STD[:channels]
    expected = ImageFormat(channels, size_px, *form, resize_px).eval_transform()(image).numpy()
    return class_input(image, channels, size_px, resize_px, *form), expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_torchvision(mode, channels):
    found, expected = both(picture(mode, (37, 29)), channels, 16, 18)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


# width, height, size_px, resize_px: larger and smaller than the crop, halves that round either way, no resizing
SIZES = [
    *((33, 20, 16, 18), (20, 33, 16, 18), (18, 18, 16, 18), (18, 27, 16, 18), (3, 2, 16, 18), (1, 1, 8, 8)),
    *((64, 64, 8, 8), (65, 64, 8, 8), (64, 67, 8, 9), (500, 3, 7, 7), (19, 18, 15, 18), (21, 18, 15, 18)),
    *((10, 10, 16, 8), (10, 11, 16, 8), (30, 10, 16, 9), (10, 30, 17, 8), (25, 10, 17, 8), (211, 127, 32, 37)),
]


@pytest.mark.parametrize(("width", "height", "size_px", "resize_px"), SIZES)
def test_every_size_equals_torchvision(width, height, size_px, resize_px):
    for channels, mode in ((3, "RGB"), (1, "L"), (3, "RGBA")):
        found, expected = both(picture(mode, (width, height)), channels, size_px, resize_px)
        assert found.shape == (channels, size_px, size_px)
        np.testing.assert_array_equal(found, expected)


def test_random_sizes_equal_torchvision():
    rng = np.random.default_rng(1)
    for _ in range(60):
        width, height, size_px, resize_px = rng.integers((1, 1, 1, 1), (90, 90, 40, 40)).tolist()
        found, expected = both(picture("RGB", (width, height)), 3, size_px, resize_px)
        np.testing.assert_array_equal(found, expected)


def test_every_grey_level_by_hand():
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    found = class_input(image, 1, 16, 16, (0.3,), (0.4,))
    np.testing.assert_allclose(found.ravel(), (np.arange(256) / 255 - 0.3) / 0.4, rtol=1e-5, atol=1e-6)


def test_16_bits_are_scaled_and_32_are_refused(check_one_line):
    grey = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    found = class_input(grey, 1, 8, 8, (0.3,), (0.4,))
    np.testing.assert_allclose(found, (156 / 255 - 0.3) / 0.4, rtol=1e-5)
    with pytest.raises(ValueError) as error:
        class_input(Image.fromarray(np.full((8, 8), 40_000, np.int32)), 1, 8, 8, (0.3,), (0.4,))
    check_one_line(error, "32 bits", "mode I")
