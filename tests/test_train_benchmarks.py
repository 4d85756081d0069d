"""The benchmarks of training: that their figures are what they say, at tiny sizes and without a clock."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from bnnlight.nn import BinaryConv2d, Matrix, Rotated, Tucker

FOLDER = Path(__file__).parents[1] / "benchmarks/training"
TINY = {"name": "tiny", "network": "hourglass", "image_size": 64, "batch_size": 2, "num_rounds": 1, "features": 32}
BATCH, HIDDEN = 16, 8
ACTIVATION = 4 * BATCH * HIDDEN
"""Bytes."""


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """Makes the scripts importable, which import each other by their names."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture
def tiny():
    from shared_networks import Setting

    return Setting(**TINY)


class Held(torch.autograd.Function):
    """x², which holds x as an attribute where autograd does not look."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.clone()
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.x * grad


def sigmoids(x):
    return x.sigmoid().sigmoid().sigmoid()


def keep_sigmoids():
    """Contexts of a checkpoint that keeps what a sigmoid returns."""
    policy = {torch.ops.aten.sigmoid.default: CheckpointPolicy.MUST_SAVE}
    return create_selective_checkpoint_contexts(
        lambda ctx, op, *args, **kwargs: policy.get(op, CheckpointPolicy.PREFER_RECOMPUTE)
    )


# between two linear layers without bias: how many hidden activations are kept, and how many of them hooks see;
# the second linear layer saves its input, which is the middle's output; square saves its input. Whether hooks see what
# selective checkpointing keeps is up to the version of torch
@pytest.mark.filterwarnings("ignore:A saved_tensors_hooks context")
@pytest.mark.parametrize(
    ("middle", "everything", "by_hooks"),
    [
        (torch.sigmoid, 1, 1),
        (sigmoids, 3, 3),
        (lambda x: x.view(-1).view(BATCH, HIDDEN).square(), 2, 2),
        (lambda x: checkpoint(sigmoids, x, use_reentrant=False), 2, 2),
        (lambda x: checkpoint(sigmoids, x, use_reentrant=False, context_fn=keep_sigmoids), 4, None),
        (Held.apply, 2, 1),
    ],
    ids=["one activation", "three", "a view of the same storage", "checkpoint", "selective checkpoint", "attribute"],
)
def test_saved_bytes_by_hand(middle, everything, by_hooks):
    from shared_step import saved_bytes

    first, second = (nn.Linear(a, b, bias=False) for a, b in ((4, HIDDEN), (HIDDEN, 2)))
    images = torch.randn(BATCH, 4)
    own = (first.weight, second.weight, images)
    loss, found = saved_bytes(lambda: second(middle(first(images))).sum(), own)
    assert found["all"] == everything * ACTIVATION
    if by_hooks is not None:
        assert found["by_hooks"] == by_hooks * ACTIVATION
    loss.backward()
    counted = first.weight.grad.clone()
    first.weight.grad = None
    second(middle(first(images))).sum().backward()
    torch.testing.assert_close(counted, first.weight.grad)


@pytest.mark.parametrize("row", ["real, contiguous", "dense", "Tucker", "Holistic", "dense, lean", "Tucker 0.5, lean"])
def test_saved_bytes_are_what_the_allocator_still_has(tiny, row, monkeypatch):
    from shared_networks import make_training

    training = make_training(tiny, row)
    training.forward()  # what is made once
    found, states, get_state = training.counted_step(), [], torch.get_rng_state
    monkeypatch.setattr(torch, "get_rng_state", lambda: states.append(get_state()) or states[-1])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss = training.forward()
    # taken less given back; the loss is alive too, and states of the random generator for checkpoints
    left = sum(event.self_cpu_memory_usage for event in profiler.events()) - loss.nbytes
    assert found["all"] == left - sum(state.nbytes for state in states)


def test_state_is_that_of_a_step(tiny):
    from shared_networks import make_training

    stepped, prepared = (make_training(tiny, "dense") for _ in range(2))
    stepped.step()
    assert prepared.own_bytes() < stepped.own_bytes()
    prepared.make_state()
    assert prepared.own_bytes() == stepped.own_bytes()


def test_peak_memory_holds_at_least_what_a_step_needs(tiny):
    from shared_networks import make_training
    from train_step_memory import in_own_process, peak_memory

    training = make_training(tiny, "dense")
    needed = training.counted_step()["all"] + training.own_bytes()
    found = in_own_process(peak_memory, tiny, "dense", 1)
    assert needed < found["peak"] - found["imported"] < 100 * needed


def test_work_by_hand():
    from train_step_floor import Rates, Work, count_work, floor_s

    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        BinaryConv2d(4, 6, 3, padding=1, latent=Matrix),
        BinaryConv2d(6, 6, 3, padding=1, latent=partial(Tucker, rank=(2, 3, 3, 3))),
        BinaryConv2d(6, 6, 3, padding=1, latent=Rotated),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    positions = 7 * 8 * 8
    real, first = positions * 4 * 27 + 7 * 6 * 5, positions * 4 * 27
    binary = positions * 6 * (4 * 9 + 2 * 6 * 9)
    # U diag(s) Vᵀ: 6×6 times 6×36. Tucker: the kernel's modes as one 9×9 matrix on the 9×6 entries of the core, then
    # output channels (6×2 times 2×27, 54×3 times 3×6) or input channels (18×3 times 3×6, 6×2 times 2×54)
    rebuilding = 6 * 6 * 36 + 9 * 9 * 6 + min(6 * 2 * 27 + 54 * 3 * 6, 18 * 3 * 6 + 6 * 2 * 54)
    # rotations: each entry of 6×54 from 6 others in its row and 6 in its column, and the same on the way back
    rotating = 6 * 54 * (6 + 6)
    work = count_work(network, (3, 8, 8), 7)
    both = rebuilding + rotating, 2 * rebuilding + rotating
    assert work == Work(binary, real, 2 * (binary + real) - first, *both)
    seconds = floor_s(Work(2, 3, 5, 7, 13), Rates(forward=3, backward=10, integer=0.5, product=20))
    assert seconds == pytest.approx(4 + 1 + 0.5 + 1)


def test_rates_are_found_for_all(tiny):
    from shared_networks import make_batch, make_network
    from train_step_floor import convolution_shapes, measure_rates

    shapes = convolution_shapes(make_network(tiny, "real, contiguous"), make_batch(tiny)[0])
    # the hourglass' blocks: 32 → 16 → 8 → 8 channels at 64/4 = 16 px and below; the stem is not 3×3
    assert (torch.Size([2, 32, 16, 16]), torch.Size([16, 32, 3, 3])) in shapes
    rates = measure_rates(shapes[:1])
    assert min(rates.forward, rates.backward, rates.integer, rates.product) > 0


def test_quartiles_and_turns():
    from shared_step import quartiles, take_turns

    assert quartiles([5.0]) == [5.0, 5.0, 5.0]
    assert quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == [2.0, 3.0, 4.0]
    calls = []
    steps = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b") or 0.25}
    times = take_turns(steps, 3)
    assert "".join(calls) == "ababab"
    assert times["b"] == [0.25] * 3
    assert len(times["a"]) == 3


def test_train_step(tiny, monkeypatch):
    import train_step
    from train_step_report import report

    # in turn with others whose seconds are known
    seconds = [[2.0, 2.2, 2.4], [1.0, 2.0, 1.0], [1.1, 2.0, 1.2], [1.5, 3.2, 1.0]]
    monkeypatch.setattr(train_step, "take_turns", lambda steps, rounds: dict(zip(steps, seconds, strict=True)))
    answers = {
        train_step.peak_memory: lambda *args: {"imported": 100, "peak": 400},
        train_step.real_steps: lambda setting, threads, keep: {"real, contiguous": 1.0 if keep else 3.0},
    }
    monkeypatch.setattr(train_step, "in_own_process", lambda function, *args: answers[function](*args))
    names = ["real, contiguous", "real, channels last", "dense", "dense, lean"]
    result = train_step.measure(tiny, names, 1, None)
    rows = result["rows"]
    assert result["baseline"] == "real, channels last"
    assert [rows[name]["ratio"] for name in names] == [2.0, 1.0, 1.1, 1.5]
    assert rows["dense"]["ratio_quartiles"] == pytest.approx([1.05, 1.15])
    assert rows["dense"]["median_ms"] == 1200
    assert rows["dense"]["limits"] == {"time": 1.12, "saved": 1.05}
    assert rows["dense, lean"]["limits"] == {"time": pytest.approx(1.4), "saved": 0.50}
    assert rows["dense"]["peak_bytes"] == 300
    saved = [rows[name]["saved"]["all"] for name in names]
    assert saved[0] == saved[1] > saved[2] > saved[3]
    assert rows["dense"]["saved_ratio"] == saved[2] / saved[1]
    assert rows["dense"]["within_limits"] == (saved[2] / saved[1] <= 1.05)
    assert not rows["dense, lean"]["within_limits"]
    record = {"results": [result], "cpu_flags": ["avx2"], "num_threads": 1, "command": "c", "commit": "d"}
    page = report(record | {"machine": "m", "torch": "t", "seconds": 1})
    assert "| dense, lean | 1500 | 1.50 (1.25 to 1.55) | **1.40** |" in page
    assert "real, contiguous 1000 ms, else 3000 ms" in page


def test_rows_are_checked():
    from shared_networks import chosen, row_names

    assert chosen(None) == row_names()
    assert chosen(["dense", "real, contiguous"]) == ["dense", "real, contiguous"]
    with pytest.raises(ValueError, match="unknown row 'dens': choose from 'real, contiguous', "):
        chosen(["dens"])
    with pytest.raises(ValueError, match="no row to compare with"):
        chosen(["dense"])


def test_scaling(tmp_path):
    import train_scaling

    assert train_scaling.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    part = train_scaling.Part(
        "batch size",
        (2, 4),
        ("real", "dense"),
        lambda value, line: train_scaling.make(train_scaling.latent(line), int(value), blocks=(1,), width=0.125),
    )
    result = train_scaling.measure(part, 1)
    # all that is saved but the statistics of batch norms and the classifier's softmax grows with the batch
    for found in result["lines"].values():
        assert found["saved_slope"] == pytest.approx(1, abs=0.01)
        assert len(found["step_ms"]) == 2
    record = {"results": [result, result], "machine": "m", "num_threads": 1, "torch": "t"}
    train_scaling.draw(record, tmp_path / "scaling.png")
    with Image.open(tmp_path / "scaling.png") as picture:
        assert picture.width > picture.height > 400


@pytest.mark.parametrize("part", range(4))
def test_every_part_of_scaling_trains_a_network_of_its_size(part):
    import train_scaling

    made = train_scaling.PARTS[part]
    small, large = (made.make(value, made.lines[1]) for value in made.values[:2])
    grows = (
        lambda training: len(training.images),
        lambda training: training.network.classifier.in_features,
        lambda training: sum(p.numel() for p in training.network.parameters()),
        lambda training: sum(isinstance(m, BinaryConv2d) for m in training.network.modules()),
    )[part]
    growth = grows(large) / grows(small)
    # the core grows with the square of the rank, and not all parameters are the factors'
    assert 1.5 < growth < 4 if part == 2 else growth == made.values[1] / made.values[0]


def test_the_steps_that_a_transfer_saves_are_told_at_equal_accuracy():
    from transfer_report import compare, outcome, steps_to

    points = [(100, 0.4), (400, 0.6), (800, 0.5), (1600, 0.9)]
    # halfway in log(steps): 100 · 4^½
    assert steps_to(0.5, points) == (pytest.approx(200), "")
    # first reached there, though it falls again behind it
    assert steps_to(0.6, points) == (pytest.approx(400), "")
    assert steps_to(0.3, points) == (100, "<") and steps_to(0.95, points) == (1600, ">")
    scratch = {100: {0: 0.4, 1: 0.2}, 400: {0: 0.6, 1: 0.8}}
    (row,) = compare({"scratch": scratch, "transfer": {50: {0: 0.5, 1: 0.3}}})
    # of the means 0.3 and 0.7; of each seed's own curve: 100 · 4^½ and 100 · 4^⅙ over 50
    assert row["pckh"] == pytest.approx(0.4) and row["ratio"] == pytest.approx(100 * 4**0.25 / 50)
    assert outcome([row]) == "The goal is missed: a start from scratch takes 2.8 times the steps; the goal was 3."
    assert outcome([row | {"ratio": 3.04}]).startswith("The goal is kept: a start from scratch takes 3.0 times")
    assert outcome([row | {"sign": ">"}]).startswith("No length")
    assert [own["ratio"] for own in row["by_seed"].values()] == pytest.approx([4, 2 * 4 ** (1 / 6)])
