import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from bnnlight.data.loading.transforms import ImageFormat, ToChannels

MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
COLOUR = ImageFormat(num_channels=3, image_size=8, mean=MEAN, std=STD, resize_px=8)
GREY = ImageFormat(num_channels=1, image_size=8, mean=(0.3,), std=(0.4,), resize_px=8)


def random_image(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_normalization_agrees_with_numpy():
    array = random_image(8, 8, 3)
    expected = ((array / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    for picture in (Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)):
        for transform in (COLOUR.eval_transform(), COLOUR.train_transform([])):
            output = transform(picture)
            assert type(output) is torch.Tensor
            assert output.dtype == torch.float32
            np.testing.assert_allclose(output.numpy(), expected, atol=1e-5)


def test_tensors_of_torchvisions_own_class_become_plain_tensors():
    output = COLOUR.train_transform([v2.ToImage()])(Image.fromarray(random_image(8, 8, 3)))
    assert type(output) is torch.Tensor


def test_grey_format_weighs_colours_by_brightness():
    array = random_image(8, 8, 3)
    brightness = array @ np.array([0.299, 0.587, 0.114])
    expected = ((brightness / 255 - 0.3) / 0.4)[None]
    for picture in (Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)):
        output = GREY.eval_transform()(picture)
        np.testing.assert_allclose(output.numpy(), expected, atol=1.01 / 255 / 0.4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_8_bit_mode_becomes_rgb_or_grey(mode):
    # Black and white are the colours that every mode can hold.
    array = np.zeros((8, 8, 3), dtype=np.uint8)
    array[:, 4:] = 255
    image = Image.fromarray(array).convert(mode)
    for num_channels, wanted in ((1, "L"), (3, "RGB")):
        converted = ToChannels(num_channels)(image)
        assert converted.mode == wanted
        levels = np.asarray(converted).reshape(8, 8, num_channels)
        np.testing.assert_allclose(levels, array[..., :num_channels], atol=1)


def test_palette_with_transparency_is_read_without_a_warning():
    image = Image.fromarray(random_image(8, 8, 3)).quantize(4)
    colours = np.asarray(image.convert("RGB"), float)
    shares = np.array([0, 128, 255, 255])[np.asarray(image), None] / 255
    expected = np.rint(shares * colours + (1 - shares) * 255)
    image.info["transparency"] = bytes([0, 128, 255, 255])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted = ToChannels(3)(image)
    np.testing.assert_array_equal(np.asarray(converted), expected)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (2, 8, 8), (3, 8, 8), (4, 8, 8)])
def test_tensors_of_one_to_four_channels(shape):
    tensor = torch.from_numpy(random_image(*shape))
    assert ToChannels(3)(tensor).shape == (3, 8, 8)
    assert ToChannels(1)(tensor).shape == (1, 8, 8)
    if shape in ((2, 8, 8), (4, 8, 8)):
        share = tensor[-1:].double() / 255
        on_white = (share * tensor[:-1] + (1 - share) * 255).round().to(torch.uint8)
        assert torch.equal(ToChannels(3)(tensor), on_white.expand(3, 8, 8))
        # as of the same picture of Pillow's
        picture = Image.fromarray(tensor.permute(1, 2, 0).numpy(), "LA" if len(tensor) == 2 else "RGBA")
        assert np.array_equal(np.asarray(ToChannels(3)(picture)), on_white.expand(3, 8, 8).permute(1, 2, 0))


def test_float_tensor_is_refused(check_one_line):
    with pytest.raises(ValueError) as error:
        COLOUR.eval_transform()(torch.rand(3, 8, 8))
    check_one_line(error, "torch.float32", "uint8")


def test_16_bit_image_is_scaled_not_clipped():
    image = Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16))
    of_8_bits = Image.new("L", (8, 8), 40_000 // 256)
    assert torch.equal(GREY.eval_transform()(image), GREY.eval_transform()(of_8_bits))


def test_32_bit_image_is_refused_not_clipped(check_one_line):
    with pytest.raises(ValueError) as error:
        GREY.eval_transform()(Image.fromarray(np.full((8, 8), 40_000, dtype=np.int32)))
    check_one_line(error, "32 bits", "mode I")


@pytest.mark.parametrize("size", [(8, 8), (20, 10), (9, 31), (3, 3)])
def test_any_size_comes_out_at_image_size(size):
    image = Image.new("RGB", size, (255, 0, 0))
    expected = ((np.array([1, 0, 0]) - MEAN) / STD)[:, None, None] * np.ones((1, 8, 8))
    for transform in (COLOUR.eval_transform(), COLOUR.train_transform([])):
        np.testing.assert_allclose(transform(image).numpy(), expected, atol=1e-5)


def test_resize_px_cuts_the_border():
    # A frame of a quarter of the side on each edge is gone if twice the size is cut to the middle.
    array = np.full((32, 32, 3), 255, dtype=np.uint8)
    array[8:24, 8:24] = 0
    zooming = ImageFormat(num_channels=3, image_size=8, mean=(0, 0, 0), std=(1, 1, 1), resize_px=20)
    assert zooming.eval_transform()(Image.fromarray(array)).max() == 0
    assert COLOUR.eval_transform()(Image.fromarray(array)).max() > 1


def test_training_leaves_pictures_alone_that_have_the_size():
    zooming = ImageFormat(num_channels=3, image_size=8, mean=(0, 0, 0), std=(1, 1, 1), resize_px=20)
    array = random_image(8, 8, 3)
    output = zooming.train_transform([])(Image.fromarray(array))
    np.testing.assert_allclose(output.numpy(), array.transpose(2, 0, 1) / 255, atol=1e-6)
