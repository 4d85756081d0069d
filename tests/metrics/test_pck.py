import math
from itertools import cycle

import numpy as np
import pytest
import torch

from bnnlight.metrics import PCK, head_size_px, mean_over_joints, mean_over_visible, pck_correct

JOINTS = 5


def draw_people(num_people, seed=0, dtype=torch.float64):
    """Joints that are found about half of the time, some not annotated, some references unusable."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 100, (num_people, JOINTS, 2))
    predictions = truth + rng.normal(0, 6, truth.shape)
    annotated = rng.uniform(size=(num_people, JOINTS)) < 0.7
    reference = rng.uniform(10, 30, num_people)
    reference[::4] = rng.choice([np.nan, np.inf, 0, -20], len(reference[::4]))
    tensors = [torch.from_numpy(a).to(dtype) for a in (predictions, truth, reference)]
    return tensors[0], tensors[1], torch.from_numpy(annotated), tensors[2]


def count_by_loop(predictions, truth, annotated, reference, threshold):
    """The definition, one joint at a time, in Python's own numbers."""
    correct, count = [0] * JOINTS, [0] * JOINTS
    for person in range(len(predictions)):
        length = float(reference[person])
        for joint in range(JOINTS):
            if not annotated[person, joint] or not 0 < length < math.inf:
                continue
            count[joint] += 1
            (x, y), (true_x, true_y) = predictions[person, joint].tolist(), truth[person, joint].tolist()
            correct[joint] += math.hypot(x - true_x, y - true_y) <= threshold * length
    return correct, count


def test_a_joint_at_exactly_the_threshold_is_right():
    truth = torch.tensor([[[10.0, 20.0]] * 4], dtype=torch.float64)
    # 3-4-5 triangles: 5 px are 0.5 × 10 px
    offsets = torch.tensor([[3.0, 4], [-4, 3], [0, 5], [0, 5 + 1e-9]], dtype=torch.float64)
    found = pck_correct(truth + offsets, truth, torch.tensor([10.0], dtype=torch.float64), 0.5)
    assert found.dtype == torch.bool
    assert found.tolist() == [[True, True, True, False]]


def test_each_person_is_measured_by_the_own_reference():
    truth = torch.zeros(3, 2, 2)
    predictions = torch.tensor([[[3.0, 0], [8, 0]]] * 3)
    found = pck_correct(predictions, truth, torch.tensor([10.0, 20.0, 2.0]), 0.5)
    assert found.tolist() == [[True, False], [True, True], [False, False]]


def test_nan_is_never_right():
    truth, reference = torch.zeros(4, 1, 2), torch.tensor([10.0, 10.0, float("nan"), 10.0])
    predictions = torch.zeros(4, 1, 2)
    predictions[0, 0, 1] = truth[1, 0, 0] = float("nan")
    assert pck_correct(predictions, truth, reference, 0.5).tolist() == [[False], [False], [False], [True]]


@pytest.mark.parametrize(
    ("predictions", "truth", "reference"),
    [
        ((4, 5, 2), (4, 1, 2), (4,)),
        ((4, 5, 3), (4, 5, 3), (4,)),
        ((5, 2), (5, 2), (5,)),
        ((4, 5, 2), (4, 5, 2), (4, 1)),
        ((4, 5, 2), (4, 5, 2), (1,)),
        ((4, 5, 2), (4, 5, 2), ()),
    ],
)
def test_shapes_that_would_only_broadcast_are_errors(predictions, truth, reference):
    with pytest.raises(ValueError, match="expected"):
        pck_correct(torch.zeros(predictions), torch.zeros(truth), torch.ones(reference), 0.5)


def test_head_size_is_three_fifths_of_the_diagonal():
    # 30 wide and 40 high: a diagonal of 50; then 5 wide and 12 high, corners the other way round: 13
    corners = torch.tensor([[[10.0, 20], [40, 60]], [[7, 15], [2, 3]]], dtype=torch.float64)
    expected = pytest.approx([30, 7.8], rel=1e-15)
    assert head_size_px(corners).tolist() == expected
    assert head_size_px(corners.reshape(2, 4)).tolist() == expected
    with pytest.raises(ValueError, match="expected"):
        head_size_px(torch.zeros(2, 2, 7))


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.2])
def test_rates_equal_a_loop_over_joints(threshold):
    people = draw_people(60)
    metric = PCK(JOINTS, threshold)
    metric.update(*people)
    correct, count = count_by_loop(*people, threshold)
    assert 0 < sum(correct) < sum(count) < 60 * JOINTS
    assert (metric.correct.tolist(), metric.count.tolist()) == (correct, count)
    assert metric.compute().tolist() == pytest.approx(np.divide(correct, count).tolist(), rel=1e-6)


def test_a_joint_that_is_not_annotated_changes_nothing_whatever_is_predicted():
    truth, annotated = torch.zeros(2, JOINTS, 2), torch.ones(2, JOINTS, dtype=torch.bool)
    annotated[:, 3] = False
    annotated[1, 0] = False
    for value in (0.0, 1e6, float("nan")):
        predictions = torch.zeros(2, JOINTS, 2)
        predictions[:, 3] = predictions[1, 0] = truth[:, 3] = truth[1, 0] = value
        metric = PCK(JOINTS, 0.5)
        metric.update(predictions, truth, annotated, torch.full((2,), 10.0))
        assert metric.correct.tolist() == metric.count.tolist() == [1, 2, 2, 0, 2]
        assert metric.compute().isnan().tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("reference", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_person_without_a_usable_reference_does_not_count(reference):
    metric = PCK(1, 0.5)
    metric.update(
        torch.zeros(2, 1, 2), torch.zeros(2, 1, 2), torch.ones(2, 1, dtype=torch.bool), torch.tensor([reference, 3.0])
    )
    assert (metric.correct.tolist(), metric.count.tolist()) == ([1], [1])


def test_a_nan_where_a_joint_counts_is_wrong():
    metric = PCK(1, 0.5)
    metric.update(
        torch.tensor([[[float("nan"), 0.0]]]), torch.zeros(1, 1, 2), torch.tensor([[True]]), torch.tensor([10.0])
    )
    assert (metric.correct.tolist(), metric.count.tolist()) == ([0], [1])


def test_both_means_by_hand():
    correct, count = torch.tensor([1, 9, 0, 5]), torch.tensor([2, 10, 0, 5])
    assert float(mean_over_visible(correct, count)) == pytest.approx(15 / 17)
    assert float(mean_over_joints(correct, count)) == pytest.approx((1 / 2 + 9 / 10 + 1) / 3)
    # without the last; the third was never annotated
    assert float(mean_over_visible(correct, count, (3,))) == pytest.approx(10 / 12)
    assert float(mean_over_joints(correct, count, (3,))) == pytest.approx((1 / 2 + 9 / 10) / 2)
    assert float(mean_over_visible(correct, count, [0, 3])) == pytest.approx(9 / 10)


def test_means_of_nothing_are_nan_and_of_float64_exact():
    correct, count = torch.tensor([1, 0]), torch.tensor([3, 0])
    for mean in (mean_over_visible, mean_over_joints):
        assert mean(correct, count, (0,)).isnan()
        assert mean(correct, count, (0, 1)).isnan()
        assert mean(correct, count).dtype == torch.float32
        assert float(mean(correct.double(), count.double())) == 1 / 3


def test_batches_in_any_size_and_order_add_up():
    people = draw_people(40)
    whole = PCK(JOINTS, 0.5)
    whole.update(*people)
    parts = PCK(JOINTS, 0.5)
    for start, end in ((30, 40), (0, 1), (1, 30)):
        parts.update(*(t[start:end] for t in people))
    assert torch.equal(parts.correct, whole.correct) and torch.equal(parts.count, whole.count)
    assert torch.equal(parts.compute(), whole.compute())


def test_processes_are_summed_and_keep_their_own_counts():
    first, second = draw_people(20, seed=1), draw_people(7, seed=2)
    other = PCK(JOINTS, 0.5)
    other.update(*second)
    # stands in for the other process: hands over its states, in the order in which they are asked for
    names = cycle(("correct", "count"))
    one = PCK(
        JOINTS,
        0.5,
        dist_sync_fn=lambda state, group: [state, getattr(other, next(names))],
        distributed_available_fn=lambda: True,
    )
    one.update(*first)
    own = (one.correct.tolist(), one.count.tolist())
    pairs = zip(count_by_loop(*first, 0.5), count_by_loop(*second, 0.5), strict=True)
    correct, count = ([a + b for a, b in zip(*pair, strict=True)] for pair in pairs)
    assert one.compute().tolist() == pytest.approx(np.divide(correct, count).tolist(), rel=1e-6)
    assert [t.tolist() for t in one.totals()] == [correct, count]
    assert (one.correct.tolist(), one.count.tolist()) == own
    # what totals returned does not change with later batches
    before = other.totals()
    other.update(*first)
    assert before[1].tolist() == count_by_loop(*second, 0.5)[1]


def test_counts_stay_whole_numbers_at_half_precision_and_reset():
    metric = PCK(JOINTS, 0.5).half()
    people = draw_people(30, dtype=torch.float32)
    metric.update(*people)
    assert metric.correct.dtype == metric.count.dtype == torch.int64
    assert (metric.correct.tolist(), metric.count.tolist()) == count_by_loop(*people, 0.5)
    metric.reset()
    assert metric.count.tolist() == [0] * JOINTS


@pytest.mark.parametrize(("joints", "annotated"), [(6, (4, 6)), (5, (4, 1)), (5, (1, 5)), (5, (4, 6))])
def test_another_number_of_joints_is_an_error(check_one_line, joints, annotated):
    metric = PCK(5, 0.5)
    with pytest.raises(ValueError) as error:
        metric.update(
            torch.zeros(4, joints, 2), torch.zeros(4, joints, 2), torch.ones(annotated, dtype=torch.bool), torch.ones(4)
        )
    check_one_line(error, "(N, 5, 2)", "(N, 5)", annotated)


@pytest.mark.parametrize(("num_joints", "threshold"), [(0, 0.5), (16, 0), (16, -0.5), (16, float("nan"))])
def test_a_metric_of_nothing_is_an_error(num_joints, threshold):
    with pytest.raises(ValueError, match="above 0"):
        PCK(num_joints, threshold)
