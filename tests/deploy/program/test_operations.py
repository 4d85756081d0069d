"""What a program may ask for: shapes are compared with torch's own, and what does not fit is refused."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnnlight.backbones import ResNet
from bnnlight.deploy.formats.plain import RUN, FrozenNetwork
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.program import INPUT, Program, Step, operations
from bnnlight.deploy.program.bits import pack_signs
from bnnlight.deploy.program.operations import OPERATIONS, check
from bnnlight.deploy.program.shapes import adaptive_windows


def one(op, settings=None, tensors=None, input_shape=(4, 8, 8), inputs=(INPUT,)):
    return Program(input_shape, (Step("it", op, inputs, settings or {}, tensors or {}),))


SLIDING = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
POOL = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "ceil_mode": False}


def ones(*shape):
    return np.ones(shape, np.float32)


RIGHT = {
    "conv2d": one("conv2d", SLIDING, {"weight": ones(6, 4, 3, 3), "bias": ones(6)}),
    "binary_conv2d": one(
        "binary_conv2d",
        {"shape": [6, 4, 3, 3], **SLIDING, "padding_value": 0},
        {"bits": pack_signs(ones(6, 4, 3, 3))},
    ),
    "linear": one("linear", {}, {"weight": ones(3, 7), "bias": ones(3)}, (7, 1, 1)),
    "binary_linear": one("binary_linear", {"shape": [3, 7]}, {"bits": pack_signs(ones(3, 7))}, (7, 1, 1)),
    "binarize": one("binarize", {}, {"threshold": ones(4), "direction": -ones(4)}),
    "affine": one("affine", {}, {"scale": ones(4, 8, 8), "shift": ones(4)}),
    "prelu": one("prelu", {}, {"slope": ones(4)}),
    "relu": one("relu"),
    "clamp": one("clamp", {"min": -1, "max": 1.0}),
    "round": one("round", {"fraction_bits": 3, "min": -1, "max": 1.0}),
    "sigmoid": one("sigmoid"),
    "tanh": one("tanh"),
    "silu": one("silu"),
    "gelu": one("gelu", {"approximate": "none"}),
    "hardswish": one("hardswish"),
    "hardsigmoid": one("hardsigmoid"),
    "max_pool2d": one("max_pool2d", {**POOL, "dilation": [1, 1]}),
    "avg_pool2d": one("avg_pool2d", {**POOL, "count_include_pad": True}),
    "adaptive_avg_pool2d": one("adaptive_avg_pool2d", {"size": [3, 12]}),
    "mean2d": one("mean2d"),
    "upsample_nearest": one("upsample_nearest", {"factor": [2, 3]}),
    "add": one("add", inputs=(INPUT, INPUT)),
    "multiply": one("multiply", inputs=(INPUT, INPUT)),
    "slice_channels": one("slice_channels", {"start": 1, "stop": 3}),
    "shuffle_channels": one("shuffle_channels", {"groups": 2}),
    "concat": one("concat", inputs=(INPUT, INPUT, INPUT)),
    "stack": one("stack", inputs=(INPUT, INPUT)),
    "flatten": one("flatten"),
}
for op in ("linear", "binary_linear"):
    it = RIGHT[op].steps[0]
    row = Step("row", "flatten", (INPUT,))
    RIGHT[op] = Program((7, 1, 1), (row, Step("it", op, ("row",), it.settings, it.tensors)))
# worked out by hand
SHAPES = {
    **dict.fromkeys(("conv2d", "binary_conv2d"), (6, 8, 8)),
    **dict.fromkeys(("linear", "binary_linear"), (3,)),
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), (4, 4, 4)),
    **{"mean2d": (4, 1, 1), "upsample_nearest": (4, 16, 24), "concat": (12, 8, 8)},
    **{"slice_channels": (2, 8, 8), "adaptive_avg_pool2d": (4, 3, 12)},
    **{"stack": (2, 4, 8, 8), "flatten": (256,)},
}


def change(program, **parts):
    """The program with another last step."""
    last = program.steps[-1]
    fields = {key: getattr(last, key) for key in ("name", "op", "inputs", "settings", "tensors")} | parts
    return Program(program.input_shape, (*program.steps[:-1], Step(**fields)))


def refused(program, check_one_line, *parts):
    with pytest.raises(ValueError) as error:
        check(program)
    check_one_line(error, *parts)
    assert type(error.value) is ValueError or error.value.__class__.__name__ == "Wrong"
    assert len(str(error.value)) < 700


def test_the_three_lists_of_operations_are_the_same():
    assert set(OPERATIONS) == set(RUN) == set(RIGHT)


@pytest.mark.parametrize("op", RIGHT)
def test_the_shape_is_the_one_worked_out_and_torchs(op):
    program = RIGHT[op]
    shape = check(program)["it"]
    assert shape == SHAPES.get(op, (4, 8, 8))
    assert FrozenNetwork(program)(torch.ones(2, *program.input_shape)).shape == (2, *shape)


# ---- windows, against torch on a range of sizes


def torch_size(run):
    """Height and width that torch gives, or None where it refuses."""
    try:
        return tuple(run().shape[2:])
    except RuntimeError:
        return None


def check_size(program):
    try:
        return check(program)["it"][1:]
    except ValueError:
        return None


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_pools_are_those_that_torch_runs(size):
    x, compared = torch.zeros(1, 1, size, size), 0
    for kernel, stride, padding, dilation in itertools.product((1, 2, 3, 4), (1, 2, 3), (0, 1, 2), (1, 2)):
        for ceil in (False, True):
            pair = {"kernel": [kernel] * 2, "stride": [stride] * 2, "padding": [padding] * 2, "ceil_mode": ceil}
            options = (kernel, stride, padding, dilation, ceil)
            wanted = torch_size(lambda o=options: F.max_pool2d(x, *o))
            # a window larger than the padded picture is refused, though torch rounds up and would run it
            if dilation * (kernel - 1) + 1 > size + 2 * padding:
                wanted = None
            made = check_size(one("max_pool2d", {**pair, "dilation": [dilation] * 2}, input_shape=(1, size, size)))
            assert made == wanted, options
            compared += made is not None
            if dilation == 1:
                made = check_size(one("avg_pool2d", {**pair, "count_include_pad": False}, input_shape=(1, size, size)))
                assert made == wanted, options
    assert compared > 20


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_convolutions_have_torchs_sizes(size):
    x, compared = torch.zeros(1, 1, size, size), 0
    for kernel, stride, padding, dilation in itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2)):
        pair = {"stride": [stride] * 2, "padding": [padding] * 2, "dilation": [dilation] * 2, "groups": 1}
        made = check_size(one("conv2d", pair, {"weight": ones(1, 1, kernel, kernel)}, (1, size, size)))
        options = (stride, padding, dilation)
        run = torch_size(lambda k=kernel, o=options: F.conv2d(x, torch.ones(1, 1, k, k), None, *o))
        # padding wider than the window is refused, though torch would run it
        assert made == run or (made is None and padding > dilation * (kernel - 1) + 1), (kernel, *options)
        compared += made is not None
    assert compared > 20


@pytest.mark.parametrize("factor", range(1, 33))
def test_every_factor_that_is_allowed_repeats_each_pixel_as_often(factor):
    x = torch.arange(40.0).view(1, 1, 2, 20)
    program = one("upsample_nearest", {"factor": [1, factor]}, input_shape=(1, 2, 20))
    assert torch.equal(FrozenNetwork(program)(x), x.repeat_interleave(factor, 3))


# ---- channels and products, by hand


def test_channels_are_sliced_and_shuffled_in_torchs_order():
    x = torch.arange(12.0).view(1, 12, 1, 1)
    shuffled = FrozenNetwork(one("shuffle_channels", {"groups": 3}, input_shape=(12, 1, 1)))(x)
    assert shuffled.flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    sliced = FrozenNetwork(one("slice_channels", {"start": 4, "stop": 7}, input_shape=(12, 1, 1)))(x)
    assert sliced.flatten().tolist() == [4, 5, 6]


def product(*shapes):
    """The program that multiplies two values of these shapes, made from one picture."""
    pictures = {(2, 3, 4): [], (2, 1, 1): [("mean2d", {})], (1, 3, 4): [("slice_channels", {"start": 1, "stop": 2})]}
    pictures[24,] = [("flatten", {})]
    steps, names = [], []
    for place, shape in enumerate(shapes):
        names.append(INPUT)
        for op, settings in pictures[shape]:
            steps.append(Step(f"{op}{place}", op, (INPUT,), settings))
            names[-1] = steps[-1].name
    return Program((2, 3, 4), (*steps, Step("it", "multiply", tuple(names))))


@pytest.mark.parametrize(
    "shapes", [((2, 3, 4), (2, 1, 1)), ((1, 3, 4), (2, 3, 4)), ((1, 3, 4), (2, 1, 1)), ((24,), (24,))]
)
def test_a_product_repeats_sides_of_one(shapes):
    program = product(*shapes)
    assert check(program)["it"] == np.broadcast_shapes(*shapes)
    x = torch.randn(2, 2, 3, 4)
    values = {(2, 3, 4): x, (2, 1, 1): x.mean((2, 3), True), (1, 3, 4): x[:, 1:], (24,): x.flatten(1)}
    assert torch.equal(FrozenNetwork(program)(x), values[shapes[0]] * values[shapes[1]])


def test_values_that_do_not_fit_are_not_multiplied(check_one_line):
    refused(product((24,), (2, 3, 4)), check_one_line, "step 'it' (multiply): multiplies values of shapes")
    steps = (Step("a", "slice_channels", (INPUT,), {"start": 0, "stop": 2}), Step("it", "multiply", (INPUT, "a")))
    refused(Program((3, 1, 1), steps), check_one_line, "[(3, 1, 1), (2, 1, 1)]")


@pytest.mark.parametrize("size", [1, 3, 7, 12])
def test_adaptive_windows_are_torchs(size):
    for after in range(1, 20):
        mean = [sum(range(a, b)) / (b - a) for a, b in adaptive_windows(size, after)]
        expected = F.adaptive_avg_pool2d(torch.arange(float(size)).view(1, 1, 1, size), (1, after))
        assert mean == pytest.approx(expected.flatten().tolist(), rel=1e-6)


# ---- settings

WRONG_PAIRS = (
    *(None, 1, True, 1.0, "11", "1", [], [1], [1, 1, 1], [1.0, 1], [True, True], [None, 1], [[1, 1]], [[1], [1]]),
    *([-1, 1], [1, -1], [2**20 + 1, 1], [2**63, 1], [10**400, 1], [float("nan"), 1], {"0": 1, "1": 1}, ["1", "1"]),
)
WRONG_FLAGS = (None, 0, 1, "true", [], [True], float("nan"))
WRONG_NUMBERS = (None, True, "1", [1], {}, float("nan"), float("inf"), 1e39, -1e39, 10**400, 2**64, -(2**64), 1j)
WRONG_SETTINGS = [
    *((op, key, value) for op, keys in {
        **dict.fromkeys(("conv2d", "binary_conv2d"), ("stride", "padding", "dilation")),
        "max_pool2d": ("kernel", "stride", "padding", "dilation"),
        "avg_pool2d": ("kernel", "stride", "padding"),
        "upsample_nearest": ("factor",),
        "adaptive_avg_pool2d": ("size",),
        "binary_linear": ("shape",),
    }.items() for key in keys for value in WRONG_PAIRS),
    *((op, key, value) for op, key in (("conv2d", "stride"), ("max_pool2d", "kernel"), ("max_pool2d", "dilation"),
                                       ("upsample_nearest", "factor"), ("binary_linear", "shape"))
      for value in ([0, 1], [0, 0])),
    *(("binary_conv2d", "shape", value) for value in
      (*WRONG_PAIRS, [6, 4, 3], [6, 4, 3, 3, 1], [6, 4, 3, 3.0], [6, 4, 3, True], [6, 4, 3, 0], [6, 4, -3, -3],
       [6, 4, 3, 2**20], [2**20] * 4, [3, 4, 3, 3])),
    *((op, "groups", value) for op in ("conv2d", "binary_conv2d")
      for value in (None, 0, -1, 2, 4, True, 1.0, "1", [1], 2**64)),
    *(("binary_conv2d", "padding_value", value) for value in
      (None, 2, -2, True, False, 1.0, -1.0, 0.5, "0", [0], [], float("nan"), 10**400)),
    *(("max_pool2d", "ceil_mode", value) for value in WRONG_FLAGS),
    *(("avg_pool2d", key, value) for key in ("ceil_mode", "count_include_pad") for value in WRONG_FLAGS),
    *(("slice_channels", key, value) for key in ("start", "stop")
      for value in (None, True, 1.0, "1", [1], -1, 5, 2**64, float("nan"))),
    ("slice_channels", "start", 3), ("slice_channels", "stop", 1),
    *(("shuffle_channels", "groups", value) for value in (None, 0, -1, 3, 8, True, 2.0, "2", [2])),
    *(("gelu", "approximate", value) for value in (None, True, "", "erf", "tanh\n", ["tanh"], "x" * 9999)),
    *(("adaptive_avg_pool2d", "size", value) for value in ([0, 1], [257, 1])),
    *(("clamp", key, value) for key in ("min", "max") for value in WRONG_NUMBERS),
    *(("round", "fraction_bits", value) for value in (65, -65, 1.0, True, "1", None)), ("round", "max", -2),
    ("clamp", "min", 2), ("clamp", "max", -2),
    ("max_pool2d", "padding", [2, 2]), ("avg_pool2d", "padding", [2, 0]), ("max_pool2d", "kernel", [9, 1]),
    ("conv2d", "dilation", [5, 5]), ("conv2d", "padding", [4, 4]), ("upsample_nearest", "factor", [65, 1]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "key", "value"), WRONG_SETTINGS)
def test_a_wrong_setting_is_refused(check_one_line, op, key, value):
    program = RIGHT[op]
    settings = {**program.steps[-1].settings, key: value}
    refused(change(program, settings=settings), check_one_line, f"step 'it' ({op}): ")


@pytest.mark.parametrize("op", RIGHT)
def test_every_setting_and_tensor_is_needed_and_no_other_is_allowed(check_one_line, op):
    program = RIGHT[op]
    last = program.steps[-1]
    assert set(last.settings) == set(OPERATIONS[op].settings)
    assert set(last.tensors) == {*OPERATIONS[op].tensors, *OPERATIONS[op].optional}
    for key in last.settings:
        fewer = {k: v for k, v in last.settings.items() if k != key}
        refused(change(program, settings=fewer), check_one_line, f"lacks the setting {key!r}")
    for key in last.tensors:
        fewer = change(program, tensors={k: v for k, v in last.tensors.items() if k != key})
        if key in OPERATIONS[op].optional:
            assert check(fewer)["it"] == check(program)["it"]
        else:
            refused(fewer, check_one_line, f"lacks the tensor {key!r}")
    for key in ("extra", "", "x\ny"):
        more = change(program, settings={**last.settings, key: 1})
        refused(more, check_one_line, f"unknown setting {key!r}")
        more = change(program, tensors={**last.tensors, key: ones(4)})
        refused(more, check_one_line, f"unknown tensor {key!r}")


# ---- tensors


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in RIGHT for name in RIGHT[op].steps[-1].tensors])
def test_a_tensor_of_another_kind_is_refused(check_one_line, op, name):
    program = RIGHT[op]
    tensors = program.steps[-1].tensors
    right = tensors[name]
    others = [right.astype(t) for t in (np.float64, np.float16, np.int8, np.int64, bool, ">f4", object)]
    others += [right.astype(np.float32 if name == "bits" else np.uint8), right.tolist(), None, 1.0]
    for wrong in others:
        refused(change(program, tensors={**tensors, name: wrong}), check_one_line, f"tensor '{name}' is ")
    resized = [right[:-1], np.concatenate([right, right]), right.reshape(1, -1), right[:0], right.reshape(-1)[0]]
    for wrong in resized:
        wrong = np.asarray(wrong)
        if name == "weight" and wrong.ndim == right.ndim and len(wrong) > 0:
            wrong = wrong[:, :-1]  # other inputs; another number of outputs is another layer
        refused(change(program, tensors={**tensors, name: wrong}), check_one_line, f"step 'it' ({op}): ")


@pytest.mark.parametrize("op", [op for op in RIGHT if op != "binarize" and "bits" not in RIGHT[op].steps[-1].tensors])
def test_numbers_that_are_not_finite_are_refused(check_one_line, op):
    program = RIGHT[op]
    for name, right in program.steps[-1].tensors.items():
        for value in (np.nan, np.inf, -np.inf):
            wrong = right.copy()
            wrong.flat[-1] = value
            tensors = {**program.steps[-1].tensors, name: wrong}
            refused(
                change(program, tensors=tensors), check_one_line, f"tensor '{name}' has numbers that are not finite"
            )


def test_a_threshold_may_be_infinite_but_no_direction_may_be_anything_but_a_sign(check_one_line):
    program = RIGHT["binarize"]
    threshold = np.float32([np.inf, -np.inf, 0, 1])
    endless = change(program, tensors={"threshold": threshold})
    assert check(endless)["it"] == (4, 8, 8)
    signs = FrozenNetwork(endless)(torch.zeros(1, 4, 8, 8))[0, :, 0, 0]
    assert signs.tolist() == [-1, 1, 1, -1]
    threshold = np.float32([np.nan, 0, 0, 0])
    refused(change(program, tensors={"threshold": threshold}), check_one_line, "not finite")
    for value in (0, 2, 0.5):
        direction = np.float32([1, 1, 1, value])
        tensors = {"threshold": ones(4), "direction": direction}
        refused(change(program, tensors=tensors), check_one_line, "neither -1 nor +1")


# ---- names and inputs


@pytest.mark.parametrize("op", RIGHT)
def test_a_wrong_number_of_inputs_is_refused(check_one_line, op):
    program = RIGHT[op]
    inputs = program.steps[-1].inputs
    refused(change(program, inputs=()), check_one_line, f"step 'it' ({op}): ")
    if op not in ("concat", "stack"):
        refused(change(program, inputs=(*inputs, inputs[0])), check_one_line, f"step 'it' ({op}): ")


@pytest.mark.parametrize(
    "inputs", [None, 1, "input", ["nobody"], ["it"], [None], [1], [["input"]], {"input": 1}, [{}], ["\n"], ["x" * 9999]]
)
def test_wrong_inputs_are_refused(check_one_line, inputs):
    refused(change(RIGHT["relu"], inputs=inputs), check_one_line, "step 'it' (relu): ")


@pytest.mark.parametrize("name", [None, "", 1, ["a"], {}, "input", "a\nb", "\x1b[2J", "\ud800", "\u2028"])
def test_wrong_names_are_refused(check_one_line, name):
    refused(change(RIGHT["relu"], name=name), check_one_line, "the name is ")


@pytest.mark.parametrize("op", [None, "", 1, ["relu"], {}, "eval", "relu\n", "__class__", "x" * 9999])
def test_unknown_operations_are_refused(check_one_line, op):
    refused(change(RIGHT["relu"], op=op), check_one_line, "there is no such operation")


def test_a_name_is_taken_once(check_one_line):
    step = Step("a", "relu", (INPUT,))
    refused(Program((1, 2, 2), (step, step)), check_one_line, "step 'a' (relu): the name is already taken")


def test_a_step_finds_only_what_stands_before_it(check_one_line):
    steps = (Step("a", "relu", ("b",)), Step("b", "relu", (INPUT,)))
    refused(Program((1, 2, 2), steps), check_one_line, "step 'a' (relu): takes 'b', which no earlier step gives")


WRONG_SHAPES = (None, (), (1, 2), (1, 2, 2, 2), (0, 1, 1), (1.0, 1, 1), (True, 1, 1), "abc", (10**400, 1, 1))


@pytest.mark.parametrize("shape", WRONG_SHAPES)
def test_a_wrong_input_shape_is_refused(check_one_line, shape):
    refused(Program(shape, RIGHT["relu"].steps), check_one_line, "input shape is ")


@pytest.mark.parametrize("count", [0, 10_001, 1_000_000])
def test_a_program_has_some_steps_and_not_too_many(check_one_line, count):
    steps = (Step("a", "relu", (INPUT,)),) * count
    refused(Program((1, 2, 2), steps), check_one_line, f"{count or 'no'} steps")


def test_a_value_has_at_most_four_dimensions(check_one_line):
    steps = (Step("a", "stack", (INPUT,)), Step("b", "stack", ("a",)))
    refused(Program((1, 2, 2), steps), check_one_line, "step 'b' (stack): stacks values of shapes")


# ---- memory and work


def chain(*steps, input_shape=(1, 64, 64)):
    made, source = [], INPUT
    for number, (op, settings, tensors) in enumerate(steps):
        made.append(Step(f"s{number}", op, (source,), settings, tensors))
        source = f"s{number}"
    return Program(input_shape, tuple(made))


UP = ("upsample_nearest", {"factor": [32, 32]}, {})
TINY = {"weight": ones(1, 1, 2, 2)}
FAR = {"stride": [2**20] * 2, "padding": [2**20] * 2, "dilation": [2**20] * 2, "groups": 1}
BITS = {"shape": [1, 1, 2, 2], **FAR, "padding_value": 1}
LONG = {"shape": [1, 1, 1, 100_000], **SLIDING, "padding": [0, 100_000], "padding_value": 0}
WIDE = {"shape": [4096, 4096, 3, 3], **SLIDING, "padding_value": 0}
HUGE = {
    "input": Program((1024, 2**15, 2**15), RIGHT["relu"].steps),
    "upsampling": chain(UP, UP),
    "padding of a real convolution": chain(("conv2d", FAR, TINY)),
    "padding of a binary convolution": chain(("binary_conv2d", BITS, {"bits": pack_signs(ones(4))})),
    "windows": chain(("binary_conv2d", LONG, {"bits": pack_signs(ones(100_000))}), input_shape=(1, 1, 1)),
    "channels": Program((64, 512, 512), (Step("a", "concat", (INPUT,) * 20),)),
    "stack": Program((64, 512, 512), (Step("a", "stack", (INPUT,) * 20),)),
    "outputs": chain(
        ("conv2d", {**SLIDING, "padding": [0, 0]}, {"weight": ones(2**20, 1, 1, 1)}), input_shape=(1, 64, 64)
    ),
    # each value is small enough, all of them together are not
    "values that are kept": Program((64, 512, 512), tuple(Step(f"s{n}", "relu", (INPUT,)) for n in range(20))),
}


@pytest.mark.parametrize("what", HUGE)
def test_a_program_cannot_take_huge_memory(check_one_line, what):
    refused(HUGE[what], check_one_line, "it takes ", "are allowed")


def test_a_value_counts_until_its_last_use():
    # 40 values of 64 MiB one after the other: two at a time
    steps = tuple(Step(f"s{n}", "relu", (f"s{n - 1}" if n else INPUT,)) for n in range(40))
    program = Program((64, 512, 512), steps)
    assert check(program)["s39"] == (64, 512, 512)


def test_a_program_cannot_take_huge_work(check_one_line):
    weight = {"bits": np.zeros(4096 * 4096 * 9 // 8, np.uint8)}
    # 4096·4096·9 · 128·128 = 2.5·10¹² multiply-adds
    program = Program((4096, 128, 128), (Step("a", "binary_conv2d", (INPUT,), WIDE, weight),))
    refused(program, check_one_line, f"{4096 * 4096 * 9 * 128 * 128} multiply-adds")
    small = Program((4096, 8, 8), program.steps)
    assert check(small)["a"] == (4096, 8, 8)


def test_many_small_steps_are_counted_together(check_one_line, monkeypatch):
    monkeypatch.setattr(operations, "MAX_WORK", 2 * 256 * 10)
    steps = tuple(Step(f"s{n}", "relu", (f"s{n - 1}" if n else INPUT,)) for n in range(11))
    assert check(Program((4, 8, 8), steps[:10]))
    refused(Program((4, 8, 8), steps), check_one_line, "step 's10' (relu)", "multiply-adds")


def test_a_large_window_of_a_pool_is_work(check_one_line, monkeypatch):
    settings = {**POOL, "kernel": [5, 9], "stride": [1, 1], "padding": [2, 4], "dilation": [1, 1]}
    program = one("max_pool2d", settings)
    # 4·8·8 values, of 5 rows and all 8 columns
    monkeypatch.setattr(operations, "MAX_WORK", 256 * 5 * 8)
    assert check(program)["it"] == (4, 8, 8)
    monkeypatch.setattr(operations, "MAX_WORK", 256 * 5 * 8 - 1)
    refused(program, check_one_line, "multiply-adds")


def test_a_frozen_network_is_sound():
    program = freeze(ResNet((1, 1), num_classes=5, width=0.125), (3, 64, 64))
    assert check(program)[program.output] == (5,)
