"""Heat maps in numpy against those of the training code in torch."""

import numpy as np
import pytest
import torch

from bnnlight.data.keypoints import heatmaps as torchs
from bnnlight.imaging.heatmaps import decode, mirror, sigmoid
from bnnlight.imaging.skeletons import MPII

RNG = np.random.default_rng(0)
MAPS = {
    "random": RNG.normal(size=(20, 5, 7, 9)),
    # few levels: the largest value stands at several places, and neighbours are equal
    "ties": RNG.integers(0, 3, (200, 4, 4, 6)),
    "flat": np.zeros((2, 3, 5, 5)),
    "one pixel": RNG.normal(size=(4, 3, 1, 1)),
    "one row": RNG.normal(size=(30, 3, 1, 6)),
    "one column": RNG.normal(size=(30, 3, 6, 1)),
    "large": RNG.normal(size=(3, 16, 64, 64)),
}


@pytest.mark.parametrize("name", MAPS)
def test_decoding_equals_torchs(name):
    maps = MAPS[name].astype(np.float32)
    joints, values = decode(maps)
    expected, highest = torchs.decode(torch.from_numpy(maps))
    assert joints.dtype == values.dtype == np.float32
    np.testing.assert_array_equal(joints, expected.numpy())
    np.testing.assert_array_equal(values, highest.numpy())


def test_every_place_with_every_pair_of_neighbours():
    # the peak at each pixel of the map, borders and corners too
    maps = RNG.permuted(np.tile(np.arange(30.0), (900, 1)), axis=1).reshape(900, 1, 5, 6)
    joints, _ = decode(maps)
    for (table,), ((x, y),) in zip(maps, joints.tolist(), strict=True):
        row, column = np.argwhere(table == 29)[0]
        right = np.sign(table[row, column + 1] - table[row, column - 1]) if 0 < column < 5 else 0
        below = np.sign(table[row + 1, column] - table[row - 1, column]) if 0 < row < 4 else 0
        assert [x, y] == [column + 0.25 * right, row + 0.25 * below]
    assert len({tuple(place) for place in joints.round().reshape(-1, 2).tolist()}) == 30


def test_mirror_equals_torchs():
    maps = RNG.normal(size=(3, 16, 5, 8)).astype(np.float32)
    expected = torchs.mirror(torch.from_numpy(maps), MPII.mirrored)
    np.testing.assert_array_equal(mirror(maps, MPII.mirrored), expected.numpy())


def test_sigmoid_equals_torchs_and_warns_of_nothing(recwarn):
    logits = np.concatenate([np.linspace(-120, 120, 2001), [-1e30, 1e30, 0]]).astype(np.float32)
    found = sigmoid(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, torch.from_numpy(logits).double().sigmoid().numpy(), rtol=1e-6, atol=1e-37)
    assert not recwarn.list
