import pytest

from bnnlight.callbacks.interval import Interval


def looks(interval, steps):
    return [step for step in steps if interval.due(step)]


def test_due_at_every_multiple_and_not_at_the_start():
    interval = Interval(3)
    assert interval.start(0)
    assert looks(interval, range(11)) == [3, 6, 9]
    assert interval.last_step == 9


def test_due_once_a_step_however_many_batches_end_at_it():
    interval = Interval(2)
    interval.start(0)
    assert looks(interval, [0, 1, 1, 2, 2, 2, 3, 4, 4]) == [2, 4]


def test_the_batches_of_a_step_that_is_looked_at_are_known_before():
    interval = Interval(3)
    assert [step for step in range(7) if interval.is_next(step)] == [2, 5]


def test_a_resumed_run_does_not_look_again_where_it_was_saved():
    interval = Interval(2)
    interval.resume(4)
    assert not interval.start(4)
    assert looks(interval, [4, 5, 6]) == [6]


def test_a_run_without_state_starts_anew_wherever_it_begins():
    interval = Interval(2)
    assert interval.start(4)
    assert looks(interval, [4, 5, 6]) == [6]


def test_only_one_start_is_a_resumed_one():
    interval = Interval(2)
    interval.resume(4)
    assert [interval.start(4), interval.start(0)] == [False, True]
    assert interval.last_step == 0


def test_overdue_unless_the_last_look_was_now():
    interval = Interval(2)
    interval.start(0)
    assert not interval.overdue(0)
    assert looks(interval, range(6)) == [2, 4]
    assert [interval.overdue(5), interval.overdue(5)] == [True, False]


@pytest.mark.parametrize("steps", [0, -5])
def test_below_one_is_an_error(steps):
    with pytest.raises(ValueError, match=f"interval is {steps}: give a number of steps of at least 1"):
        Interval(steps)
