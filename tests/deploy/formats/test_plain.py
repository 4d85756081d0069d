import math
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.deploy.formats.plain import RUN, FrozenNetwork
from bnnlight.deploy.program import INPUT, Program, Step
from bnnlight.deploy.program.operations import OPERATIONS


def relu(name, *inputs):
    return Step(name, "relu" if len(inputs) == 1 else "add", inputs)


def small():
    threshold = {"threshold": np.float32([0.5, -0.5]), "direction": np.float32([1, -1])}
    bits = {"bits": np.uint8([0b0110])}
    settings = {"shape": [2, 2, 1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    return Program(
        (2, 1, 1),
        (
            Step("s", "binarize", (INPUT,), {}, threshold),
            Step("c", "binary_conv2d", ("s",), {**settings, "padding_value": 0}, bits),
            Step("a", "affine", ("c",), {}, {"scale": np.float32([2, 3]), "shift": np.float32([0, 1])}),
        ),
    )


def test_small_program_by_hand():
    x = torch.tensor([[0.5, -0.5], [0.4, -0.4], [torch.nan, torch.nan], [3, -3]]).view(4, 2, 1, 1)
    shown = {}
    y = FrozenNetwork(small())(x, lambda name, value: shown.__setitem__(name, value.flatten(1).tolist()))
    assert shown["s"] == [[1, 1], [-1, -1], [-1, -1], [1, 1]]
    # weights are - + over + -
    assert shown["c"] == [[0, 0], [0, 0], [0, 0], [0, 0]]
    assert y.flatten(1).tolist() == [[0, 1]] * 4
    y = FrozenNetwork(small())(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).view(2, 2, 1, 1))
    assert y.flatten(1).tolist() == [[2 * -2, 3 * 2 + 1], [2 * 2, 3 * -2 + 1]]


def test_nothing_can_be_trained_and_nothing_is_state():
    network = FrozenNetwork(small())
    assert list(network.parameters()) == []
    assert network.state_dict() == {}
    assert len(list(network.buffers())) == 5
    x = torch.zeros(1, 2, 1, 1, requires_grad=True)
    assert network(x).requires_grad is False


def test_is_moved_and_never_rounded(check_one_line):
    network = FrozenNetwork(small())
    assert network.to("cpu", torch.float32) is network
    on_meta = FrozenNetwork(small()).to("meta")
    assert {t.device.type for own in on_meta.tensors() for t in own.values()} == {"meta"}
    # 1 + 2⁻²³ is 1 in half precision
    threshold = np.nextafter(np.float32([1, 1]), np.float32(2))
    fine = FrozenNetwork(Program((2, 1, 1), (Step("s", "binarize", (INPUT,), {}, {"threshold": threshold}),)))
    around = nn.Sequential(fine)
    for cast in (around.half, around.double, around.bfloat16, lambda: around.to(torch.float16)):
        cast()
        assert fine(torch.ones(1, 2, 1, 1)).flatten().tolist() == [-1, -1]
        assert fine(torch.from_numpy(threshold).view(1, 2, 1, 1)).flatten().tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"torch\.float32") as error:
        fine(torch.ones(1, 2, 1, 1).half())
    check_one_line(error, "torch.float16")


@pytest.mark.parametrize("wrong", [torch.zeros(1, 3, 1, 1), torch.zeros(2, 1, 1), torch.zeros(1, 2, 1, 1).double()])
def test_other_pictures_are_refused(wrong, check_one_line):
    with pytest.raises(ValueError) as error:
        FrozenNetwork(small())(wrong)
    check_one_line(error, tuple(wrong.shape), wrong.dtype, "'N', 2, 1, 1", "torch.float32")


def test_program_that_is_not_sound_is_refused(check_one_line):
    with pytest.raises(ValueError) as error:
        FrozenNetwork(Program((2, 1, 1), (relu("y", "nowhere"),)))
    check_one_line(error, "'y'", "'nowhere'")


def test_values_are_released_after_their_last_use():
    # input → a → b → c, with a taken again by the last step
    program = Program(
        (1, 2, 2), (relu("a", INPUT), relu("b", "a"), relu("c", "b"), relu("d", "c", "a"), relu("y", "d"))
    )
    network = FrozenNetwork(program)
    assert [set(names) for names in network.done] == [{INPUT}, set(), {"b"}, {"c", "a"}, {"d"}]
    alive, references = {}, {}

    def look(name, value):
        alive[name] = {n for n, reference in references.items() if reference() is not None}
        references[name] = weakref.ref(value)

    network(torch.ones(1, 1, 2, 2), look)
    assert alive == {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a", "c"}, "y": {"d"}}


def test_program_is_left_as_it_is():
    program = small()
    network = FrozenNetwork(program)
    for tensor in network.buffers():
        tensor.fill_(7)
    assert program.steps[0].tensors["threshold"].tolist() == [0.5, -0.5]


def test_every_operation_can_be_run():
    assert set(RUN) == set(OPERATIONS)


@pytest.mark.parametrize("factor", [(1, 2), (3, 1), (7, 5), (64, 41)])
def test_upsampling_repeats_pixels(factor):
    program = Program((2, 5, 9), (Step("u", "upsample_nearest", (INPUT,), {"factor": list(factor)}),))
    x = torch.randn(2, 2, 5, 9)
    expected = x.repeat_interleave(factor[0], 2).repeat_interleave(factor[1], 3)
    assert torch.equal(FrozenNetwork(program)(x), expected)


def test_padding_of_signs():
    settings = {"shape": [1, 1, 3, 3], "stride": [1, 1], "padding": [1, 2], "dilation": [1, 1], "groups": 1}
    sign = Step("s", "binarize", (INPUT,), {}, {"threshold": np.zeros(1, np.float32)})
    bits = {"bits": np.uint8([0b11111111, 1])}
    x = torch.randn(2, 1, 4, 4)
    for value in (0, 1, -1):
        conv = Step("c", "binary_conv2d", ("s",), {**settings, "padding_value": value}, bits)
        signs = F.pad(torch.where(x >= 0, 1.0, -1.0), (2, 2, 1, 1), value=value)
        assert torch.equal(FrozenNetwork(Program((1, 4, 4), (sign, conv)))(x), F.conv2d(signs, torch.ones(1, 1, 3, 3)))


def test_autocast_does_not_round():
    # sums of 301 signs are odd, and above 256 a bfloat16 is even
    settings = {"shape": [1, 301, 1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    sign = Step("s", "binarize", (INPUT,), {}, {"threshold": np.zeros(301, np.float32)})
    bits = {"bits": np.full(math.ceil(301 / 8), 255, np.uint8)}
    conv = Step("c", "binary_conv2d", ("s",), {**settings, "padding_value": 0}, bits)
    network = FrozenNetwork(Program((301, 1, 1), (sign, conv)))
    with torch.autocast("cpu", torch.bfloat16):
        y = network(torch.ones(1, 301, 1, 1))
    assert y.dtype == torch.float32 and abs(y.item()) == 301
