"""A run that goes on logs nothing twice and leaves nothing out."""

import pytest

from bnnlight.tracking.log_book import LogBook

# two validations before the third optimizer step, two behind it, and what a training logs meanwhile
RUN = [
    *((2, {"val": 0.1}), (2, {"val": 0.2}), (3, {"lr": 1, "epoch": 0}), (3, {"lr": 2, "epoch": 0})),
    *((3, {"val": 0.3}), (3, {"val": 0.4}), (4, {"lr": 3, "val": 0.5, "epoch": 1})),
]


def logged(book, run):
    rows = [{"step": step, **book.new(metrics, step)} for step, metrics in run]
    return [row for row in rows if len(row) > 1]


def test_of_a_run_that_is_not_stopped_everything_is_new():
    assert logged(LogBook(), RUN) == [{"step": step, **metrics} for step, metrics in RUN]


@pytest.mark.parametrize("stop", range(len(RUN) + 1))
@pytest.mark.parametrize("saved", range(len(RUN) + 1))
def test_a_run_saved_here_and_stopped_there_logs_what_the_whole_run_does(saved, stop):
    if saved > stop:
        return
    first, second = LogBook(), LogBook()
    rows = logged(first, RUN[:saved])
    state = first.state()
    rows += logged(first, RUN[saved:stop])
    second.read(rows)
    second.go_on(state)
    assert rows + logged(second, RUN[saved:]) == [{"step": step, **metrics} for step, metrics in RUN]


def test_a_checkpoint_of_an_earlier_version_has_no_state_and_repeats_nothing():
    book = LogBook()
    book.read([{"step": 2, "a": 1}])
    assert logged(book, [(1, {"a": 1}), (2, {"a": 1, "b": 1}), (3, {"a": 1})]) == [
        {"step": 2, "b": 1},
        {"step": 3, "a": 1},
    ]


def test_what_this_start_logged_before_it_went_on_is_in_the_log():
    book = LogBook()
    book.new({"a": 1}, 5)
    book.go_on({"a": (4, 1)})
    assert logged(book, [(5, {"a": 1}), (5, {"a": 2})]) == [{"step": 5, "a": 2}]
    assert book.state() == {"a": (5, 2)}


def test_figures_out_of_order_are_let_through_once():
    book = LogBook()
    assert book.new({"a": 1}, 9) and book.new({"a": 1}, 7) and book.new({"a": 1}, 8)
    book.go_on(book.state())
    assert not book.new({"a": 1}, 7)
