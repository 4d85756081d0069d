"""Keys are legal in every tracker, and those of earlier versions are understood."""

import json
import re

import pytest

from bnnlight.tracking.keys import RENAMED, current
from bnnlight.tracking.log_book import LogBook
from bnnlight.tracking.metrics_file import MetricsFile, read_rows
from bnnlight.tracking.runs import read_runs

LEGAL = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
"""What MLflow takes without a change, and what is a path on every system."""
GROUPS = (
    *("lr-AdamW-2", "lr-AdamW-1/weight", "lr-AdamW/weight", "lr-AdamW/weight/added1", "lr-AdamW/weight-momentum"),
    *("lr-AdamW/norm/added1", "lr-AdamW/latent", "lr-AdamW/latent/added2", "lr-AdamW/latent/backbone.conv/factors.0"),
    *("lr-AdamW/latent/backbone.conv/factors.0/added1", "lr-AdamW/latent/backbone.conv/core"),
)
"""What Lightning's LearningRateMonitor makes of the groups' names, of a network whose latents are partly dense."""


def folders(key):
    parts = key.split("/")
    return {"/".join(parts[:count]) for count in range(1, len(parts))}


def check_legal(keys):
    keys = set(keys)
    assert [key for key in keys if not LEGAL.fullmatch(key)] == []
    assert keys & {folder for key in keys for folder in folders(key)} == set()


def test_a_run_logs_keys_that_are_legal_everywhere(digits_run):
    run_dir, _ = digits_run
    logged = {key for line in (run_dir / "metrics.jsonl").read_text().splitlines() for key in json.loads(line)}
    assert {"bnn/flip_rate_mean", "lr-AdamW/weight"} <= logged and not logged & RENAMED.keys()
    check_legal(logged)


def test_rates_of_groups_get_keys_that_are_legal_together():
    with pytest.raises(AssertionError):
        check_legal(GROUPS)
    keys = [current(key) for key in GROUPS]
    assert len(set(keys)) == len(GROUPS)
    check_legal([*keys, "stage/real/val/acc1", *RENAMED.values(), "bnn/flip_rate/a.b"])
    assert current("lr-AdamW/weight/added1") == "lr-AdamW/weight-added1"
    assert current("lr-Bop/latent/a.b/factors.0/added1") == "lr-Bop/factors/a.b/factors.0-added1"
    # what has its name is left alone
    for key in (*keys, *RENAMED.values(), "bnn/flip_rate/a.b", "val/acc1"):
        assert current(current(key)) == current(key)
    for key in ("lr-Bop/latent", "bnn/flip_rate/a.b", "stage/real/val/acc1", "val/acc1"):
        assert current(key) == key


def test_a_run_of_an_earlier_version_goes_on_as_one(tmp_path):
    run_dir = tmp_path / "a" / "b"
    run_dir.mkdir(parents=True)
    old = [{"step": 10, "bnn/flip_rate": 0.5, "stage": 1}, {"step": 20, "bnn/flip_rate": 0.25}]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    file = MetricsFile(str(run_dir))
    file.book.go_on({"bnn/flip_rate": (10, 1)})  # as a checkpoint of that version has it
    for step, rate in ((20, 0.25), (30, 0.125)):
        file.log_metrics({"bnn/flip_rate_mean": rate, "lr-AdamW/weight/added1": 0.1}, step)
    # written as it is called now, not only read so
    assert '"lr-AdamW/weight-added1"' in file.path.read_text() and "/added1" not in file.path.read_text()
    rows = list(read_rows(file.path))
    assert [(row["step"], row.get("bnn/flip_rate_mean")) for row in rows if "bnn/flip_rate_mean" in row] == [
        (10, 0.5),
        (20, 0.25),
        (30, 0.125),
    ]
    (run,), problems = read_runs([str(run_dir)])
    assert not problems and run.series["bnn/flip_rate_mean"] == {10: 0.5, 20: 0.25, 30: 0.125}
    assert run.series["bnn/stage"] == {10: 1} and run.series["lr-AdamW/weight-added1"] == {20: 0.1, 30: 0.1}


def test_what_stands_in_a_log_under_its_old_key_is_not_new():
    book = LogBook()
    book.read([{"step": 5, "stage": 1.0}, {"step": 6, "bnn/update_rank": 2.0}])
    assert book.new({"bnn/stage": 1.0, "bnn/update_rank_mean": 2.0}, 5) == {}
    assert book.new({"bnn/update_rank_mean": 3.0}, 7) == {"bnn/update_rank_mean": 3.0}
