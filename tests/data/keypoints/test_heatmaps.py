"""Heat maps against loops in float64, and there and back again."""

import math

import pytest
import torch

from bnnlight.data.keypoints.heatmaps import decode, mirror, render
from bnnlight.imaging.heatmaps import to_heatmap, to_input


def gaussian(x, y, joint, sigma):
    return math.exp(-((x - joint[0]) ** 2 + (y - joint[1]) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize("sigma", [1.0, 1.7])
def test_render_is_a_gaussian_round_the_joint(sigma):
    joints = torch.tensor([[[2.3, 1.0], [0.0, 4.6]], [[-3.0, 2.0], [5.5, 0.2]]], dtype=torch.float64)
    maps = render(joints, 5, 7, sigma)
    assert maps.shape == (2, 2, 5, 7)
    for n in range(2):
        for j in range(2):
            for y in range(5):
                for x in range(7):
                    expected = gaussian(x, y, joints[n, j].tolist(), sigma)
                    assert maps[n, j, y, x].item() == pytest.approx(expected, rel=1e-12)


def decoded_by_hand(table):
    """The quarter-pixel rule written out, for one map given as rows."""
    best = max((value, -y, -x) for y, row in enumerate(table) for x, value in enumerate(row))
    y, x = -best[1], -best[2]
    shift_x = shift_y = 0.0
    if 0 < x < len(table[0]) - 1:
        left, right = table[y][x - 1], table[y][x + 1]
        shift_x = 0.25 * ((right > left) - (right < left))
    if 0 < y < len(table) - 1:
        above, below = table[y - 1][x], table[y + 1][x]
        shift_y = 0.25 * ((below > above) - (below < above))
    return [x + shift_x, y + shift_y], best[0]


def test_decode_moves_a_quarter_of_a_pixel_toward_the_larger_neighbour():
    torch.manual_seed(0)
    maps = torch.rand(20, 3, 4, 6, dtype=torch.float64)
    joints, values = decode(maps)
    for n in range(20):
        for j in range(3):
            expected, value = decoded_by_hand(maps[n, j].tolist())
            assert joints[n, j].tolist() == expected
            assert values[n, j].item() == value


@pytest.mark.parametrize(("place", "expected"), [((0, 0), (0, 0)), ((5, 3), (5, 3)), ((0, 2), (0, 2.25))])
def test_decode_does_not_look_beyond_the_border(place, expected):
    # the pixel that follows in memory is large and belongs to the next row
    x, y = place
    maps = torch.zeros(1, 1, 4, 6)
    maps[0, 0, y, x] = 2
    if y + 1 < 4:
        maps[0, 0, y + 1, x] = 1
        expected = (expected[0], y + 0.25 if y > 0 else y)
    joints, _ = decode(maps)
    assert joints[0, 0].tolist() == list(expected)


def test_a_symmetric_peak_stays():
    maps = render(torch.tensor([[[3.0, 2.0]]], dtype=torch.float64), 5, 7)
    joints, _ = decode(maps)
    assert joints[0, 0].tolist() == [3, 2]


def test_joints_come_back_within_a_quarter_of_a_pixel():
    torch.manual_seed(0)
    joints = torch.rand(200, 4, 2, dtype=torch.float64) * torch.tensor([60.0, 44.0]) + 1.5
    found, _ = decode(render(joints, 48, 64))
    assert (found - joints).abs().max() <= 0.25 + 1e-9


def test_pixels_of_input_and_heat_map_share_their_outer_edge():
    # the left edge of both lies half a pixel left of the first pixel's middle
    assert to_heatmap(torch.tensor(-0.5), 4).item() == -0.5
    assert to_heatmap(torch.tensor(1.5), 4).item() == 0
    joints = torch.rand(10, 3, 2, dtype=torch.float64) * 256
    torch.testing.assert_close(to_input(to_heatmap(joints, 4), 4), joints)


def test_mirror_brings_the_maps_of_a_mirror_image_back():
    joints = torch.tensor([[[1.0, 2.0], [5.0, 1.0], [3.0, 3.0]]], dtype=torch.float64)
    order = (1, 0, 2)
    width, stride = 8, 4
    in_input = to_input(joints, stride)
    # of the mirror image of the input, left and right joint have changed places
    mirrored_input = torch.stack((stride * width - 1 - in_input[..., 0], in_input[..., 1]), 2)[:, list(order)]
    maps = render(to_heatmap(mirrored_input, stride), 6, width)
    torch.testing.assert_close(mirror(maps, order), render(joints, 6, width))
