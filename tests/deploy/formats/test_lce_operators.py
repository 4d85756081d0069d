"""Each operation in Larq Compute Engine's operators, with numbers whose arithmetic is exact, beside torch."""

import math

import numpy as np
import pytest
import torch
from fixtures.lce_in_torch import run
from fixtures.lce_interpreter import interpret

from bnnlight.deploy.formats.larq.operators import WRITE, to_lce
from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.program.bits import pack_signs
from bnnlight.deploy.program.operations import OPERATIONS


def eighths(rng, *shape):
    """Numbers n/8: sums and products of a few of them are exact in float32, in any order."""
    return (rng.integers(-8, 9, shape) / 8).astype(np.float32)


def step(name, op, *inputs, settings=None, **tensors):
    return Step(name, op, inputs or ("input",), settings or {}, tensors)


def sliding(stride=1, padding=0, dilation=1, groups=1, **more):
    pairs = {"stride": stride, "padding": padding, "dilation": dilation}
    pairs = {name: [value] * 2 if isinstance(value, int) else list(value) for name, value in pairs.items()}
    return {**pairs, "groups": groups, **more}


def binary(rng, inputs, outputs, kernel, padding_value, name="y", source="sign", **window):
    shape = [outputs, inputs // window.get("groups", 1), *kernel]
    bits = pack_signs(rng.choice([-1, 1], shape))
    return step(
        name, "binary_conv2d", source, settings=sliding(**window, shape=shape, padding_value=padding_value), bits=bits
    )


def sign(rng, channels, source="input", name="sign"):
    return step(name, "binarize", source, threshold=eighths(rng, channels))


def binary_cases():
    """Binary convolutions with any padding: what the engine pads itself, and what is written out."""
    windows = {
        "same": ((6, 7), 40, (3, 3), dict(padding=1)),
        "1x1": ((5, 5), 32, (1, 1), {}),
        "valid": ((6, 6), 3, (3, 3), dict(stride=2)),
        "stride, even": ((8, 8), 64, (3, 3), dict(stride=2, padding=1)),
        "stride, odd": ((7, 9), 32, (3, 3), dict(stride=2, padding=1)),
        "dilated": ((9, 8), 32, (3, 3), dict(padding=2, dilation=2)),
        "dilated, stride": ((10, 9), 33, (3, 3), dict(padding=2, dilation=2, stride=2)),
        "oblong": ((6, 9), 64, (5, 1), dict(padding=(2, 0), stride=(1, 2))),
        "more padding": ((4, 5), 32, (3, 3), dict(padding=2)),
        "small": ((2, 2), 32, (3, 3), dict(padding=1)),
        "one pixel": ((1, 1), 8, (3, 3), dict(padding=1)),
        "less than a window": ((4, 3), 32, (5, 5), dict(padding=2)),
        "groups": ((6, 6), 64, (3, 3), dict(padding=1, groups=2)),
        "groups, stride": ((6, 6), 96, (3, 3), dict(padding=1, groups=3, stride=2)),
        "small groups": ((6, 5), 9, (3, 3), dict(padding=1, groups=3, stride=2)),
        "depth-wise": ((5, 7), 6, (3, 3), dict(padding=2, groups=6, dilation=2)),
        "depth-wise, twofold": ((6, 6), 3, (5, 3), dict(padding=1, groups=3)),
    }
    for name, (size, channels, kernel, window) in windows.items():
        for value in (-1, 0, 1):
            rng = np.random.default_rng(len(name))
            layers = (sign(rng, channels), binary(rng, channels, 6, kernel, value, **window))
            yield f"{name}, {value}", Program((channels, *size), layers)


def pools():
    for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 1)):
        for ceil in (False, True):
            settings = {"kernel": [kernel] * 2, "stride": [stride] * 2, "padding": [padding] * 2, "ceil_mode": ceil}
            name = f"{kernel}, {stride}, {padding}, {ceil}"
            most = step("y", "max_pool2d", settings={**settings, "dilation": [1, 1]})
            yield f"max {name}", Program((5, 7, 8), (most,))
            signs = step("most", "max_pool2d", "sign", settings=most.settings)
            rng = np.random.default_rng(kernel)
            again = step("again", "binarize", "most", threshold=np.zeros(40, np.float32))
            layers = (sign(rng, 40), signs, again, binary(rng, 40, 4, (1, 1), 0, source="again"))
            yield f"max of signs {name}", Program((40, 7, 8), layers)
            if kernel == 2 or not padding:  # or the means are not exact
                for include in (False, True):
                    mean = step("y", "avg_pool2d", settings={**settings, "count_include_pad": include})
                    yield f"mean {name}, {include}", Program((5, 7, 8), (mean,))


def other_cases():
    rng = np.random.default_rng(0)
    conv = dict(weight=eighths(rng, 8, 4, 3, 3), bias=eighths(rng, 8))
    for name, window in {
        "conv": dict(padding=1),
        "conv, stride": dict(padding=1, stride=2),
        "conv, dilated": dict(padding=(1, 2), dilation=2, stride=(1, 2)),
    }.items():
        yield name, Program((4, 8, 7), (step("y", "conv2d", settings=sliding(**window), **conv),))
        for groups, inputs in ((2, 2), (4, 1)):
            own = dict(weight=eighths(rng, 8, inputs, 3, 3))
            layer = step("y", "conv2d", settings=sliding(**window, groups=groups), **own)
            yield f"{name}, {groups} groups", Program((4, 8, 7), (layer,))
    yield (
        "map",
        Program(
            (5, 4, 4),
            (
                step("scaled", "affine", scale=eighths(rng, 5, 4, 4), shift=eighths(rng, 5)),
                step("prelu", "prelu", "scaled", slope=eighths(rng, 5)),
                step("narrow", "clamp", "prelu", settings={"min": -0.5, "max": 0.625}),
                step("six", "clamp", "scaled", settings={"min": 0, "max": 6}),
                step("one", "clamp", "scaled", settings={"min": -1, "max": 1}),
                step("relu", "relu", "scaled"),
                step("both", "concat", "narrow", "six", "one", "relu"),
                step("up", "upsample_nearest", "both", settings={"factor": [2, 3]}),
                step("sum", "add", "up", "up"),
                step("maps", "stack", "sum", "up"),
            ),
        ),
    )
    signs = step(
        *("sign", "binarize"),
        threshold=np.float32([0.125, -np.inf, np.inf, -0.25, 0]),
        direction=np.float32([-1, 1, 1, -1, 1]),
    )
    yield "directions", Program((5, 4, 4), (signs, step("y", "flatten", "sign")))
    yield (
        "rows",
        Program(
            (4, 3, 2),
            (
                step("row", "flatten"),
                step("s", "binarize", "row", threshold=eighths(rng, 24)),
                step(
                    "b",
                    "binary_linear",
                    "s",
                    settings={"shape": [6, 24]},
                    bits=pack_signs(rng.choice([-1, 1], (6, 24))),
                ),
                step("a", "affine", "b", scale=eighths(rng, 6), shift=eighths(rng, 6)),
                step("p", "prelu", "a", slope=eighths(rng, 6)),
                step("two", "stack", "p", "a"),
                step("more", "affine", "two", scale=eighths(rng, 2), shift=eighths(rng, 2)),
                step("joined", "concat", "more", "two"),
                step("flat", "flatten", "joined"),
                step("y", "linear", "flat", weight=eighths(rng, 3, 24), bias=eighths(rng, 3)),
            ),
        ),
    )
    yield (
        "parts",
        Program(
            (6, 4, 2),
            (
                step("one", "slice_channels", settings={"start": 1, "stop": 5}),
                step("shuffled", "shuffle_channels", "one", settings={"groups": 2}),
                step("pixel", "mean2d"),
                step("gate", "slice_channels", "pixel", settings={"start": 2, "stop": 6}),
                step("gated", "multiply", "shuffled", "gate"),
                step("product", "multiply", "gate", "gated"),
                step("coarse", "round", "product", settings={"fraction_bits": 2, "min": -0.5, "max": 0.75}),
                step("even", "adaptive_avg_pool2d", "shuffled", settings={"size": [3, 3]}),
                step("row", "flatten", "coarse"),
                step("two", "stack", "row", "row"),
                step("first", "slice_channels", "two", settings={"start": 0, "stop": 1}),
                step("last", "flatten", "even"),
                step("less", "slice_channels", "last", settings={"start": 3, "stop": 35}),
                step("more", "stack", "less", "less"),
                step("y", "concat", "first", "more"),
            ),
        ),
    )
    halves = step("mean", "mean2d"), step("up", "upsample_nearest", "mean", settings={"factor": [41, 3]})
    yield "mean", Program((3, 4, 2), (*halves, step("s", "stack", "up", "up"), step("y", "flatten", "s")))


CASES = {**dict(binary_cases()), **dict(pools()), **dict(other_cases())}


def wanted(program, images):
    """The output as torch has it, channels last, and every binarization."""
    signs = {}

    def look(name, value):
        if name in binarized(program):
            signs[name] = value.numpy() > 0

    with torch.no_grad():
        y = FrozenNetwork(program)(torch.from_numpy(images), look).numpy()
    return np.moveaxis(y, -3, -1) if y.ndim > 3 else y, signs


def binarized(program):
    return [s.name for s in program.steps if s.op == "binarize"]


def check(program, found, images):
    output, signs = wanted(program, images)
    np.testing.assert_array_equal(found[0], output)
    for name, words in zip(binarized(program), found[1:], strict=True):
        negative = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")
        expected = ~signs[name] if signs[name].ndim < 4 else ~np.moveaxis(signs[name], 1, -1)
        np.testing.assert_array_equal(negative[..., : expected.shape[-1]], expected)
        assert not negative[..., expected.shape[-1] :].any()


def pictures(program):
    """Two of n/8, among them both zeros."""
    images = eighths(np.random.default_rng(7), 2, *program.input_shape)
    images[:, :, 0, 0] = -0.0
    return images


@pytest.mark.parametrize("name", CASES)
def test_as_in_torch(name):
    program = CASES[name]
    images = pictures(program)
    check(program, run(to_lce(program, {}, look=True), images), images)


@pytest.mark.parametrize("kernel", ["bgemm", "indirect"])
def test_as_in_torch_by_the_engine(kernel, tmp_path):
    jobs = [(to_lce(program, {}, look=True), pictures(program)) for program in CASES.values()]
    for (name, program), found, (_, images) in zip(CASES.items(), interpret(tmp_path, jobs, kernel), jobs, strict=True):
        print(name)  # of the one that fails
        check(program, found, images)


CURVES = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "gelu": lambda x: x * np.vectorize(math.erfc)(-x / np.sqrt(2)) / 2,
    "gelu, tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
}


def curve(name):
    op, _, form = name.partition(", ")
    return step(name, op, settings={"approximate": form or "none"} if op == "gelu" else {})


CURVE = Program((5, 4, 3), (*map(curve, CURVES), step("y", "concat", *CURVES)))


@pytest.mark.parametrize("engine", [False, True], ids=["in torch", "engine"])
def test_curves(engine, tmp_path):
    images = 8 * pictures(CURVE)
    content = to_lce(CURVE, {})
    (found,) = interpret(tmp_path, [(content, images)])[0] if engine else run(content, images)
    x = np.moveaxis(images.astype(np.float64), 1, -1)
    for name, part in zip(CURVES, np.split(found, len(CURVES), -1), strict=True):
        np.testing.assert_allclose(
            part, CURVES[name](x), rtol=2e-6, atol=1e-6 if "gelu" in name else 1e-7, err_msg=name
        )


def test_each_operation_has_a_case():
    assert WRITE.keys() == OPERATIONS.keys()
    assert {s.op for program in (*CASES.values(), CURVE) for s in program.steps} == OPERATIONS.keys()
