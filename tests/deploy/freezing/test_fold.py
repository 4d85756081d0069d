import numpy as np
import pytest
import torch

from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.freezing.fold import fold
from bnnlight.deploy.program import INPUT, Program, Step
from bnnlight.deploy.program.bits import pack_signs
from bnnlight.deploy.program.operations import check

C = 4


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def affine(name, source, seed, shift=True):
    tensors = {"scale": numbers(seed, C)} | ({"shift": numbers(seed + 100, C)} if shift else {})
    return Step(name, "affine", (source,), {}, tensors)


def binarize(name, source):
    return Step(name, "binarize", (source,), {}, {"threshold": np.zeros(C, np.float32)})


def convolution(name, source, seed, weight=None, bias=False):
    settings = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    tensors = {"weight": numbers(seed, C, C, 3, 3) if weight is None else weight}
    return Step(name, "conv2d", (source,), settings, tensors | ({"bias": numbers(seed + 9, C)} if bias else {}))


def add(name, *sources):
    return Step(name, "add", sources)


def folded(*steps):
    """The program folded, after a check that it computes the same."""
    program = Program((C, 5, 5), steps)
    check(program)
    small = fold(program)
    check(small)
    x = torch.from_numpy(numbers(1, 3, C, 5, 5))
    torch.testing.assert_close(FrozenNetwork(small)(x), FrozenNetwork(program)(x), rtol=1e-5, atol=1e-5)
    assert small.output == program.output
    return {step.name: step for step in small.steps}


def test_chain_in_front_of_a_sign_from_the_input_on():
    steps = folded(affine("a", INPUT, 1), Step("r", "clamp", ("a",), {"min": -1.0, "max": 2.0}), binarize("s", "r"))
    assert list(steps) == ["s"]
    assert steps["s"].inputs == (INPUT,)


def test_value_that_is_taken_twice_stays():
    steps = folded(affine("a", INPUT, 1), binarize("s", "a"), add("y", "s", "a"))
    assert list(steps) == ["a", "s", "y"]
    # taken twice by one step
    assert list(folded(affine("a", INPUT, 1), add("y", "a", "a"), binarize("s", "y"))) == ["a", "y", "s"]
    # the chain goes back as far as a value is for the sign alone
    steps = folded(affine("a", INPUT, 1), affine("b", "a", 2), binarize("s", "b"), add("y", "a", "s"))
    assert list(steps) == ["a", "s", "y"]
    assert steps["s"].inputs == ("a",)


def test_arithmetic_behind_real_layers_stays_as_it_is_rounded():
    # multiplied into the weights, or into one another, other signs would follow now and then
    steps = folded(convolution("c", INPUT, 1, bias=True), affine("a", "c", 2), affine("b", "a", 3, shift=False))
    assert list(steps) == ["c", "a", "b"]
    steps = folded(convolution("c", INPUT, 1), affine("a", "c", 2), binarize("s", "a"), add("y", "a", "s"))
    assert list(steps) == ["c", "a", "s", "y"]
    # for a sign alone it becomes a threshold, behind them too
    assert list(folded(convolution("c", INPUT, 1), affine("a", "c", 2), binarize("s", "a"))) == ["c", "s"]


def test_scale_for_each_position_is_no_part_of_a_chain():
    spatial = Step("a", "affine", (INPUT,), {}, {"scale": numbers(3, C, 5, 5)})
    assert list(folded(spatial, binarize("s", "a"))) == ["a", "s"]
    assert list(folded(spatial, affine("b", "a", 1), Step("y", "relu", ("b",)))) == ["a", "b", "y"]
    assert list(folded(convolution("c", INPUT, 1), Step("a", "affine", ("c",), {}, spatial.tensors))) == ["c", "a"]


def test_affine_that_changes_nothing_is_dropped():
    plain = Step("p", "affine", (INPUT,), {}, {"scale": np.ones(C, np.float32)})
    assert list(folded(plain, Step("y", "relu", ("p",)), add("z", "p", "y"))) == ["y", "z"]
    # but not where it is all there is
    assert list(folded(plain)) == ["p"]
    shifted = Step("p", "affine", (INPUT,), {}, {**plain.tensors, "shift": np.float32([0, 0, 0, 1])})
    assert list(folded(shifted, Step("y", "relu", ("p",)))) == ["p", "y"]
    nearly = Step("p", "affine", (INPUT,), {}, {"scale": np.float32([1, 1, 1, -1])})
    assert list(folded(nearly, Step("y", "relu", ("p",)))) == ["p", "y"]


def test_output_that_is_arithmetic_or_a_sign():
    assert list(folded(convolution("c", INPUT, 1), binarize("s", "c"))) == ["c", "s"]
    assert list(folded(Step("r", "relu", (INPUT,)), affine("a", "r", 1))) == ["r", "a"]


def test_constant_channels():
    scale, shift = np.float32([0, 0, 1, -1]), np.float32([1, -1, 0, 0])
    chain = Step("a", "affine", (INPUT,), {}, {"scale": scale, "shift": shift})
    steps = folded(chain, binarize("s", "a"))
    assert steps["s"].tensors["threshold"].tolist() == [-np.inf, np.inf, 0, 0]
    assert steps["s"].tensors["direction"].tolist() == [1, 1, 1, -1]


@pytest.mark.parametrize("slope", [[0.1, 0, 1, 0.5], [0.1, 0, -1e-30, 0.5]])
def test_only_a_rising_prelu_is_part_of_a_chain(slope):
    prelu = Step("p", "prelu", (INPUT,), {}, {"slope": np.float32(slope)})
    steps = folded(prelu, affine("a", "p", 1), binarize("s", "a"))
    assert list(steps) == (["s"] if min(slope) >= 0 else ["p", "s"])


def test_what_is_not_monotone_or_not_by_channel_ends_a_chain():
    for op, settings in (("tanh", {}), ("sigmoid", {}), ("upsample_nearest", {"factor": [1, 1]})):
        assert list(folded(Step("t", op, (INPUT,), settings), affine("a", "t", 1), binarize("s", "a"))) == ["t", "s"]


def test_steps_that_nothing_takes_are_dropped():
    assert list(folded(affine("a", INPUT, 1), Step("unused", "relu", ("a",)), Step("y", "tanh", ("a",)))) == ["a", "y"]


def test_convolution_of_signs_by_signs_gets_bits():
    signs = np.where(numbers(1, C, C, 3, 3) > 0, np.float32(1), np.float32(-1))
    steps = folded(binarize("s", INPUT), convolution("c", "s", 0, signs), affine("a", "c", 2))
    assert [step.op for step in steps.values()] == ["binarize", "binary_conv2d", "affine"]
    assert steps["c"].settings["padding_value"] == 0
    np.testing.assert_array_equal(steps["c"].tensors["bits"], pack_signs(signs))
    # one weight, or one input, that is not a sign
    signs[0, 0, 0, 0] = 2
    steps = folded(binarize("s", INPUT), convolution("c", "s", 0, signs))
    assert steps["c"].op == "conv2d"
    signs[0, 0, 0, 0] = 1
    assert folded(Step("r", "relu", (INPUT,)), convolution("c", "r", 0, signs))["c"].op == "conv2d"
    assert folded(binarize("s", INPUT), convolution("c", "s", 0, signs, bias=True))["c"].op == "conv2d"


def test_threshold_is_found_before_anything_is_rounded():
    # 1e8 + x is 1e8 for x up to 4: both steps together, x - 1, would know better
    up = {"scale": np.ones(C, np.float32), "shift": np.full(C, 1e8, np.float32)}
    down = {"scale": np.ones(C, np.float32), "shift": np.full(C, -1e8 - 8, np.float32)}
    program = Program(
        (C, 1, 1),
        (Step("a", "affine", (INPUT,), {}, up), Step("b", "affine", ("a",), {}, down), binarize("s", "b")),
    )
    x = torch.linspace(-20, 20, 4001).view(-1, 1, 1, 1).expand(-1, C, 1, 1).contiguous()
    assert torch.equal(FrozenNetwork(fold(program))(x), FrozenNetwork(program)(x))
    assert 1 < float(fold(program).steps[0].tensors["threshold"][0]) != 8


def test_folding_twice_changes_nothing():
    steps = (
        convolution("c", INPUT, 1),
        affine("a", "c", 2),
        affine("b", "a", 3),
        binarize("s", "b"),
        add("y", "s", "s"),
    )
    once = fold(Program((C, 5, 5), steps))
    twice = fold(once)
    assert [s.name for s in once.steps] == [s.name for s in twice.steps]
    for one, two in zip(once.steps, twice.steps, strict=True):
        for name, tensor in one.tensors.items():
            np.testing.assert_array_equal(tensor, two.tensors[name])
