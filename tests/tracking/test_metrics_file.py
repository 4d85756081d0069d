"""The file of a run's figures: what is in it, and what a stop does to it."""

import json

import numpy as np
import pytest
import torch

from bnnlight.tracking import MetricsFile, read_rows


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_row_is_in_the_file_as_soon_as_it_is_logged(tmp_path):
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0}, step=3)
    assert lines(tmp_path) == [{"step": 3, "train/loss": 0.5, "epoch": 0.0}]
    logger.log_metrics({"val/acc1": torch.tensor(0.25), "n": np.float32(2)}, step=4)
    assert lines(tmp_path)[1:] == [{"step": 4, "val/acc1": 0.25, "n": 2.0}]


def test_only_single_numbers_are_kept(tmp_path):
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"text": "a", "flag": True, "many": torch.ones(2), "list": [1.0], "one": 1}, step=0)
    logger.log_metrics({"text": "alone"}, step=1)
    assert lines(tmp_path) == [{"step": 0, "one": 1.0}]


def test_within_a_run_a_key_may_come_twice_at_a_step(tmp_path):
    logger = MetricsFile(tmp_path)
    for value in (1.0, 2.0):
        logger.log_metrics({"a": value}, step=0)
    assert [row["a"] for row in lines(tmp_path)] == [1.0, 2.0]


def test_a_resumed_run_adds_what_is_new_and_repeats_nothing(tmp_path):
    first = MetricsFile(tmp_path)
    for step in (10, 20, 30):
        first.log_metrics({"a": step, **({"b": 0} if step < 30 else {})}, step)
    second = MetricsFile(tmp_path)
    # trained again from a checkpoint at step 15; b of step 30 had not been logged
    for step in (20, 30, 40):
        second.log_metrics({"a": -step, "b": 1}, step)
    found = [(row["step"], row.get("a"), row.get("b")) for row in lines(tmp_path)]
    assert found == [(10, 10, 0), (20, 20, 0), (30, 30, None), (30, None, 1), (40, -40, 1)]


def test_half_a_line_of_a_killed_run_is_not_read_and_not_written_to(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1.0}\n{"step": 2, "a"')
    assert list(read_rows(path)) == [{"step": 1, "a": 1.0}]
    MetricsFile(tmp_path).log_metrics({"a": 3}, step=3)
    assert lines(tmp_path) == [{"step": 1, "a": 1.0}, {"step": 3, "a": 3.0}]


def test_figures_that_are_not_finite_survive(tmp_path):
    MetricsFile(tmp_path).log_metrics({"a": float("nan"), "b": float("inf")}, step=0)
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert row["a"] != row["a"] and row["b"] == float("inf")


@pytest.mark.parametrize("line", ["not json", '{"a": 1}', "[1]", '{"step": "x"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not a row"):
        list(read_rows(tmp_path / "metrics.jsonl"))


def test_figures_without_a_step_get_the_last_one_and_the_file_can_be_read(tmp_path):
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"a": 1})
    logger.log_metrics({"a": 2}, step=7)
    logger.log_metrics({"b": 3})
    MetricsFile(tmp_path).log_metrics({"c": 4})
    assert [(row["step"], *row.keys() - {"step"}) for row in read_rows(tmp_path / "metrics.jsonl")] == [
        *((0, "a"), (7, "a"), (7, "b"), (7, "c"))
    ]
