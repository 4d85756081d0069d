"""Probabilities and the names of the best."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from bnnlight.imaging.class_pictures import annotate
from bnnlight.imaging.classes import softmax, top_classes


def test_softmax_by_hand():
    found = softmax(np.array([[0.0, math.log(3)], [5.0, 5.0]], np.float32))
    np.testing.assert_allclose(found, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)


def test_large_logits_are_no_trouble():
    found = softmax(np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]], np.float32))
    np.testing.assert_array_equal(found, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_best_first_and_of_equal_ones_the_first():
    found = top_classes(np.array([0.1, 0.4, 0.1, 0.4]), ["a", "b", "c", "d"], 3)
    assert [c["class"] for c in found] == ["b", "d", "a"]
    assert [c["probability"] for c in found] == [0.4, 0.4, 0.1]
    assert all(type(c["probability"]) is float for c in found)


@pytest.mark.parametrize(("names", "wanted"), [([], ["1", "0"]), (["cat"], ["1", "cat"])])
def test_classes_without_a_name_are_called_by_their_number(names, wanted):
    assert [c["class"] for c in top_classes(np.array([0.2, 0.8], np.float32), names, 9)] == wanted


@pytest.mark.parametrize(("size", "height"), [((8, 4), 240), ((960, 480), 240), ((1000, 1), 1)])
def test_the_picture_stands_above_its_lines(size, height):
    sheet = np.asarray(annotate(Image.new("RGB", size, (10, 20, 30)), ["first", "second"]))
    assert sheet.shape == (height + 2 * 24 + 12, 480, 3)
    assert (sheet[:height] == (10, 20, 30)).all()
    # white paper with dark letters on both lines
    for line in (sheet[height : height + 28], sheet[height + 30 : height + 54]):
        assert (line == 255).mean() > 0.9 and line.min() < 120


def test_many_classes_agree_with_torch():
    probabilities = np.random.default_rng(0).permutation(1000).astype(np.float32)
    found = top_classes(probabilities, [], 7)
    assert [int(c["class"]) for c in found] == torch.from_numpy(probabilities).topk(7).indices.tolist()
