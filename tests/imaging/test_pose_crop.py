"""The square round a picture as a pose network's input."""

import numpy as np
import pytest

from bnnlight.data.keypoints.person import Person, PosePicture
from bnnlight.data.keypoints.transforms import PoseTransform
from bnnlight.imaging.pose_crop import MEAN, STD, crop_to_image, square_round, warp, whole_picture
from bnnlight.imaging.skeletons import LSP


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rotation_turns_clockwise_as_seen():
    # a joint above the middle comes to lie to the right of it
    to_image = crop_to_image(np.zeros(2), 64.0, np.pi / 2, False, 64)
    above = np.array([0.0, -10.0])
    x, y = np.linalg.solve(to_image[:, :2], above - to_image[:, 2])
    np.testing.assert_allclose([x, y], [31.5 + 10, 31.5], atol=1e-9)


def test_a_picture_of_the_right_size_is_copied():
    pixels = noise(32, 32)
    image, to_image = whole_picture(pixels, 32)
    np.testing.assert_allclose(image.transpose(1, 2, 0), (pixels / 255 - MEAN) / STD, atol=1e-5)
    np.testing.assert_allclose(to_image, [[1, 0, 0], [0, 1, 0]], atol=1e-7)


def test_a_narrow_picture_stands_in_the_middle_of_the_mean_colour():
    pixels = noise(32, 16)
    image, to_image = whole_picture(pixels, 32)
    np.testing.assert_allclose(image[:, :, 8:24].transpose(1, 2, 0), (pixels / 255 - MEAN) / STD, atol=1e-5)
    # the mean colour in whole grey levels
    assert abs(image[:, :, :8]).max() < 0.5 / 255 / STD.min()
    np.testing.assert_allclose(to_image, [[1, 0, -8], [0, 1, 0]], atol=1e-6)


def test_mean_and_std_of_another_data_set():
    pixels = noise(16, 8)
    mean, std = (0.5, 0.25, 0.75), (0.5, 0.25, 0.125)
    image, _ = whole_picture(pixels, 16, mean, std)
    np.testing.assert_allclose(image[:, :, 4:12].transpose(1, 2, 0), (pixels / 255 - mean) / std, atol=1e-5)
    assert abs(image[:, :, :4]).max() <= 0.51 / 255 / min(std)


@pytest.mark.parametrize("size", [(64, 64), (37, 120), (500, 333), (1, 1), (7, 3000), (640, 641)])
def test_equals_the_transform_of_the_training_code(size):
    pixels, joints = noise(*size), len(LSP.joints)
    center = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2], np.float32)
    person = Person(np.zeros((joints, 2), np.float32), np.zeros(joints, bool), center, float(max(size)))
    sample = PoseTransform(LSP, 48)(PosePicture(pixels, person))
    image, to_image = whole_picture(pixels, 48)
    assert image.dtype == to_image.dtype == np.float32
    np.testing.assert_array_equal(image, sample["image"].numpy())
    np.testing.assert_array_equal(to_image, sample["to_image"].numpy())


def test_a_far_larger_picture_is_averaged_not_sampled():
    # single white pixels, which four-pixel interpolation would hit or miss; their mean is 1/16 of white
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[::4, ::4] = 255
    to_image = crop_to_image(*square_round(image), 0.0, False, 64)
    np.testing.assert_allclose(warp(image, to_image, 64), 255 / 16, atol=0.5)
    assert to_image[0, 0] == 16  # the map itself is left as it was
