"""The comparison of a shipped model with its checkpoint: counted by hand, and judged."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.deploy.check import Agreement, Check
from bnnlight.deploy.proof.verify import SideBySide, answers, count, observed
from bnnlight.nn import BinaryConv2d


def test_answers_are_classes_or_pixels():
    assert answers(np.array([[0.0, 2, 1], [5, 4, 3]])).tolist() == [[1], [0]]
    maps = np.zeros((1, 2, 3, 2, 2), np.float32)
    maps[0, 1, :, 1, 0] = [1, -1, 0]  # of the last stack alone
    assert answers(maps).tolist() == [[2, 0, 0]]


def test_counts_by_hand():
    agreement = Agreement()
    wanted = np.array([[4.0, 1], [1, 2], [3, 0], [0, 8]])
    found = np.array([[4.0, 1.5], [2, 1], [3, 0], [0, 8.004]])
    count(agreement, wanted, found, np.array([0, 7, 0, 0]), 100)
    assert (agreement.num_images, agreement.num_same) == (4, 3)
    assert (agreement.num_signs, agreement.num_flipped, agreement.num_images_flipped) == (100, 7, 1)
    # 0.5 of 4; the picture with other signs does not count
    assert agreement.output_difference == pytest.approx(0.125)
    count(agreement, wanted[:1], wanted[:1], np.array([1]), 25)
    assert (agreement.same, agreement.flipped) == (4 / 5, 8 / 125)
    count(agreement, wanted[:1], wanted[:1] * np.nan, np.array([0]), 25)
    assert agreement.output_difference == np.inf


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = BinaryConv2d(2, 2, 1, scale="none")

    def forward(self, x):
        return self.layer(self.layer(x) - 1).flatten(1)


def test_the_network_is_watched_and_the_model_answers():
    torch.manual_seed(0)
    network, x = Twice().eval(), torch.randn(3, 2, 1, 1)
    output, seen = observed(network, x)
    # a layer that is used twice has two signs, under the names that a program gives them
    assert list(seen) == ["layer.sign", "layer.sign@2"]
    assert np.array_equal(seen["layer.sign"], (x >= 0).numpy())
    assert np.array_equal(seen["layer.sign@2"], (network.layer(x) - 1 >= 0).numpy())
    assert not network.layer._forward_hooks

    def signs(images):
        found = {name: sign.copy() for name, sign in seen.items()}
        found["layer.sign"][1] ^= True
        return found

    both = SideBySide(network, lambda images: output.numpy() + 1, signs)
    assert torch.equal(both(x), output + 1)
    assert (both.agreement.num_signs, both.agreement.num_flipped) == (12, 2)
    assert (both.agreement.num_images, both.agreement.num_images_flipped) == (3, 1)


GOOD = Check("m", Agreement(10_000, 9_995, 10**6, 100, 5, 1e-6), {"test/acc1": 0.5}, {"test/acc1": 0.5004})


def changed(checkpoint=None, model=None, exact=True, **numbers):
    agreement = dataclasses.replace(GOOD.agreement, **numbers)
    return Check("m", agreement, checkpoint or GOOD.checkpoint, model or GOOD.model, exact)


def test_what_is_wrong_what_is_told_and_what_is_right():
    assert GOOD.failures() == [] and GOOD.warning() is None
    for wrong, part in (
        (changed(num_same=9_699), "only 96.99 % of the answers"),
        (changed(output_difference=1.1e-3), "1.1e-03"),
        (changed(output_difference=np.inf), "outputs differ"),
        (changed(output_difference=np.nan), "outputs differ"),
        (changed(model={"test/acc1": 0.494}), "top-1 accuracy differs by 0.60 points"),
        (changed(model={"test/acc1": np.nan}), "top-1 accuracy"),
    ):
        assert len(wrong.failures()) == 1 and part in wrong.failures()[0]
        assert wrong.warning() is None
        # rounded real layers may differ
        assert dataclasses.replace(wrong, exact=False).failures() == []
    few = changed(num_same=9_900)
    assert few.failures() == [] and "100 of 10,000 answers differ" in few.warning()
    assert "answers differ" in changed(model={"test/acc1": 0.4985}).warning()
    # of few pictures one weighs more than the limit
    small = changed(num_images=100, num_same=100, model={"test/acc1": 0.49})
    assert small.failures() == [] and small.warning() is None


def test_rows_and_record():
    rows = {what: (value, asked) for what, value, asked in GOOD.rows()}
    assert rows["same answer"] == ("99.95 %", "at least 99.9 %")
    assert rows["activation bits that differ"][0] == "100 of 1,000,000 (0.01 %)"
    assert rows["top-1 accuracy"][0] == "50.04 %, the checkpoint's 50.00 %"
    everywhere = changed(num_images_flipped=10_000)
    assert dict((w, v) for w, v, _ in everywhere.rows())["largest relative difference on the others"] == (
        "there are no others"
    )
    assert everywhere.record()["agreement"]["output_difference"] is None
    assert GOOD.record()["model"] == {"test/acc1": 0.5004}
    assert all(asked == "" for *_, asked in changed(exact=False).rows())
