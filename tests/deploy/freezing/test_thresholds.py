from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.deploy.freezing.arithmetic import batch_norm, multiply_add
from bnnlight.deploy.freezing.fold import apply_per_channel, fold
from bnnlight.deploy.freezing.thresholds import find_thresholds
from bnnlight.deploy.program import INPUT, Program, Step

F32 = np.float32
TINY, LARGE = F32(1e-45), np.finfo(F32).max
SCALES = [1, -1, 0.5, -0.3, 0, -0.0, 1e-30, -1e-30, 1e30, -1e30, 3e-39, -1e-45, 3.1, -7e-3]
SHIFTS = [0, -0.0, 1, -1, 0.1, -0.7, 1e30, -1e30, 1e-30, -1e-40, 1e8, -3e38, 1e-45]


def as_float32(number: Fraction):
    """The float32 number next to an exact one; of two, the one whose last bit is 0."""
    near = F32(float(number))
    candidates = [near, np.nextafter(near, F32(np.inf)), np.nextafter(near, F32(-np.inf))]
    candidates = [c for c in candidates if np.isfinite(c)]
    return min(candidates, key=lambda c: (abs(Fraction(float(c)) - number), int(c.view(np.int32)) & 1))


def numbers(rng, count):
    """float32 numbers of all magnitudes, both signs, some subnormal."""
    x = rng.integers(0, 2**32, count, dtype=np.uint32).view(F32)
    return np.where(np.isfinite(x), x, F32(0))


def test_multiply_add_is_rounded_once():
    rng = np.random.default_rng(0)
    x, scale, shift = (10.0 ** rng.uniform(-3, 3, (3, 3000)) * rng.choice([-1, 1], (3, 3000))).astype(F32)
    # nearly all of the product cancelled, where a second rounding shows most
    shift[::2] = -(x * scale)[::2]
    exact = [
        Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)) for a, b, c in zip(x, scale, shift, strict=True)
    ]
    assert multiply_add(x, scale, shift).tolist() == [float(as_float32(e)) for e in exact]
    assert (multiply_add(x, scale, shift) != x * scale + shift).mean() > 0.3


@pytest.mark.parametrize("sign", [1, -1])
def test_multiply_add_next_to_the_middle_of_two_numbers(sign):
    # 187713 · 45761 = 2³³ + 1: a little above the middle between 1 and the next number, 1 + 2⁻²³
    above = F32(sign * 187713 * 2.0**-28), F32(45761 * 2.0**-29), F32(sign)
    # (1 + 2⁻²³)(1 − 2⁻²³) = 1 − 2⁻⁴⁶: a little below the middle between 1 + 2⁻²³ and 1 + 2⁻²²
    below = F32(sign * (1 + 2.0**-23) * 2.0**-12), F32((1 - 2.0**-23) * 2.0**-12), F32(sign * (1 + 2.0**-23))
    for x, scale, shift in (above, below):
        # float64 loses how far it is from the middle, and rounds to the even number
        assert F32(np.float64(x) * scale + shift) != sign * (1 + 2.0**-23)
        assert multiply_add(np.full(1, x), scale, shift).tolist() == [sign * (1 + 2.0**-23)]
        assert as_float32(Fraction(float(x)) * Fraction(float(scale)) + Fraction(float(shift))) == sign * (1 + 2.0**-23)


def test_multiply_add_beyond_all_numbers():
    x = F32([LARGE, -LARGE, LARGE, np.inf, -np.inf, np.nan])
    expected = F32([np.inf, -np.inf, 5, 5, 5, np.nan])
    np.testing.assert_array_equal(multiply_add(x, F32([4, 4, 0, 0, 0, 1]), F32(5)), expected)


def test_batch_norm_equals_torch_bit_for_bit():
    rng = np.random.default_rng(1)
    norm = nn.BatchNorm2d(64).eval()
    with torch.no_grad():
        norm.running_mean.copy_(torch.from_numpy(rng.normal(0, 3, 64)))
        norm.running_var.copy_(torch.from_numpy(rng.uniform(0, 4, 64)))
        norm.weight.normal_()
        norm.bias.normal_()
        x = torch.randn(8, 64, 20, 20)
        layouts = [norm(x), norm(x.contiguous(memory_format=torch.channels_last))]
    parts = [t.detach().numpy() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
    scale, shift = batch_norm(*parts, norm.eps)
    fused = multiply_add(x.numpy(), scale[:, None, None], shift[:, None, None])
    twice = x.numpy() * scale[:, None, None] + (parts[3] - parts[0] * scale)[:, None, None]
    # processors that torch has no fused steps for round twice
    has_fused = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    for expected in layouts:
        assert np.array_equal(fused, expected.numpy()) or (not has_fused and np.array_equal(twice, expected.numpy()))


def affine(scale, shift):
    return Step("affine", "affine", (), {}, {"scale": scale, "shift": shift})


def random_chain(rng, channels):
    steps = []
    for _ in range(rng.integers(1, 5)):
        kind = rng.choice(["affine", "affine", "prelu", "clamp", "relu"], p=[0.4, 0.3, 0.15, 0.1, 0.05])
        if kind == "affine":
            scale = np.where(rng.random(channels) < 0.5, rng.choice(SCALES, channels), rng.normal(size=channels))
            shift = np.where(rng.random(channels) < 0.5, rng.choice(SHIFTS, channels), rng.normal(size=channels))
            steps.append(affine(scale.astype(F32), shift.astype(F32)))
        elif kind == "prelu":
            slope = np.where(rng.random(channels) < 0.3, rng.choice([0, 1], channels), rng.random(channels))
            steps.append(Step("prelu", "prelu", (), {}, {"slope": slope.astype(F32)}))
        elif kind == "clamp":
            low, high = np.sort(rng.normal(size=2))
            steps.append(Step("clamp", "clamp", (), {"min": float(low), "max": float(high)}))
        else:
            steps.append(Step("relu", "relu", ()))
    return steps


def run_in_torch(steps, x):
    """The chain in torch; multiply-adds in float64, rounded to float32 once."""
    y = torch.from_numpy(x)
    for step in steps:
        tensors = {name: torch.from_numpy(t) for name, t in step.tensors.items()}
        if step.op == "affine":
            y = (y.double() * tensors["scale"].double() + tensors["shift"].double()).float()
        elif step.op == "prelu":
            y = nn.functional.prelu(y, tensors["slope"])
        else:
            y = y.clamp(step.settings["min"], step.settings["max"]) if step.op == "clamp" else y.relu()
    return y.numpy()


@pytest.mark.parametrize("seed", range(40))
def test_comparison_equals_the_sign_of_a_chain(seed):
    rng = np.random.default_rng(seed)
    channels = 40
    steps = random_chain(rng, channels)

    def positive(x):
        for step in steps:
            x = apply_per_channel(step, x)
        return x >= 0

    threshold, direction = find_thresholds(positive, channels)
    assert threshold.dtype == direction.dtype == F32
    assert set(direction) <= {-1, 1}
    near = np.where(np.isfinite(threshold), threshold, F32(0))
    around = [near]
    for side in (LARGE, -LARGE):
        around.append(np.nextafter(near, side))
        around.append(np.nextafter(around[-1], side))
    zeros = [np.full(channels, v, F32) for v in (0.0, -0.0, TINY, -TINY, LARGE, -LARGE)]
    x = np.stack([*around, *zeros, *numbers(rng, (1500, channels)), *(near * rng.uniform(0.9, 1, (50, 1)).astype(F32))])
    y = run_in_torch(steps, x)
    known = ~np.isnan(y)  # 0 · ∞ far out: torch makes no number of it, the comparison the limit
    assert known.mean() > 0.8
    compared = direction * x >= direction * threshold
    np.testing.assert_array_equal(compared[known], (y >= 0)[known])


@pytest.mark.parametrize(
    ("scale", "shift", "threshold", "direction"),
    [
        (2, -3, 1.5, 1),
        (-2, 3, 1.5, -1),
        (1, 0, 0, 1),
        (-1, 0, 0, -1),
        (0, 1, -np.inf, 1),
        (0, 0, -np.inf, 1),
        (0, -1e-45, np.inf, 1),
        (1e-30, 1, -1e30, 1),
        (-1e-30, 1, 1e30, -1),
        (1, 3e38, -3e38, 1),
        # half of the smallest number rounds to -0, which is >= 0
        (0.5, 0, -1e-45, 1),
        # the first multiple of 1/3 in float32 that reaches 1
        (1 / 3, -1, 3, 1),
        (1e-45, 3e38, -np.inf, 1),
        (1e-45, -3e38, np.inf, 1),
    ],
)
def test_thresholds_by_hand(scale, shift, threshold, direction):
    step = affine(F32([scale]), F32([shift]))
    found, turned = find_thresholds(lambda x: apply_per_channel(step, x) >= 0, 1)
    if np.isfinite(threshold) and abs(threshold) > 1e20:
        np.testing.assert_allclose(found, F32([threshold]), rtol=2e-7)
    else:
        assert found.tolist() == F32([threshold]).tolist()
    assert turned.tolist() == [direction]


def test_sign_of_what_is_no_number_is_negative():
    threshold, direction = find_thresholds(lambda x: x * F32([1, -1, 0]) >= F32([0, 0, 0]), 3)
    assert not (direction * F32(np.nan) >= direction * threshold).any()


def test_chain_behind_a_turned_comparison():
    # 3 - 2x >= 1 or its mirror, in front of a binarization that compares downwards already: -y >= -1
    scale, shift = F32([-2, 2, 0, 0]), F32([3, 3, 0.5, 2])
    inner = Step("sign", "binarize", ("affine",), {}, {"threshold": np.ones(4, F32), "direction": -np.ones(4, F32)})
    program = Program((4, 1, 1), (Step("affine", "affine", (INPUT,), {}, {"scale": scale, "shift": shift}), inner))
    (step,) = fold(program).steps
    assert step.inputs == (INPUT,)
    assert step.tensors["threshold"].tolist() == [1, -1, -np.inf, np.inf]
    assert step.tensors["direction"].tolist() == [1, -1, 1, 1]
