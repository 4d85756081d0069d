"""Local files of TensorBoard and MLflow that cannot be read, or only in part."""

import sqlite3

import pytest
import yaml

from bnnlight.tracking.runs import read_runs
from bnnlight.tracking.stores.mlflow import find_mlflow_runs


def write_mlflow_run(folder, name, figures=(), **meta):
    (folder / "metrics").mkdir(parents=True)
    meta = {"run_name": name, "experiment_id": "1", "artifact_uri": "x", "lifecycle_stage": "active", **meta}
    (folder / "meta.yaml").write_text(yaml.safe_dump({"run_id": folder.name, **meta}))
    for key, lines in figures:
        (folder / "metrics" / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / "metrics" / key).write_text("".join(line + "\n" for line in lines))


def test_files_of_mlflow(tmp_path):
    experiment = tmp_path / "mlruns" / "1"
    experiment.mkdir(parents=True)
    (experiment / "meta.yaml").write_text("experiment_id: '1'\nartifact_location: x\nlifecycle_stage: active\n")
    # two values of one step: the later one counts, as where a run that went on has logged it again
    lines = ["90 0.5 10", "91 0.25 20", "92 0.75 20", "93 nan 30 data digest"]
    write_mlflow_run(experiment / "bb", "second", [("val/acc1", lines)], start_time=9)
    write_mlflow_run(experiment / "aa", "first", [("stage", ["90 1 0"])], start_time=3)
    write_mlflow_run(experiment / "cc", "gone", [("a", ["90 1 0"])], lifecycle_stage="deleted")
    write_mlflow_run(tmp_path / "mlruns/.trash/2/dd", "trash", [("a", ["90 1 0"])])
    (first, second), problems = read_runs([str(tmp_path / "mlruns")])
    assert not problems and (first.name, second.name) == ("first", "second")
    assert first.series == {"bnn/stage": {0: 1.0}}
    found = second.series["val/acc1"]
    assert list(found) == [10, 20, 30] and (found[10], found[20]) == (0.5, 0.75) and found[30] != found[30]
    (alone,), _ = read_runs([str(experiment / "aa")])
    assert alone.run_id == "aa" and alone.source == str(experiment / "aa")


@pytest.fixture
def database(tmp_path):
    """A file with the tables of MLflow's that are read."""
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (run_uuid, name, lifecycle_stage, start_time)")
        db.execute("CREATE TABLE params (key, value, run_uuid)")
        db.execute("CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan)")
        rows = [("b", "late", "active", 9), ("a", "early", "active", 3), ("c", "gone", "deleted", 1)]
        db.executemany("INSERT INTO runs VALUES (?, ?, ?, ?)", rows)
        params = [("model/lr", "1e-05", "a"), ("model/name", "None of it", "a"), ("seed", "0", "b")]
        db.executemany("INSERT INTO params VALUES (?, ?, ?)", params)
        figures = [("val/acc1", 0.5, 1, "a", 10, False), ("val/acc1", 0.0, 2, "a", 20, True)]
        db.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", figures)
    db.close()
    return path


def test_a_database_of_mlflow(database, tmp_path):
    before = database.read_bytes()
    for source in (database, tmp_path):
        (early, late), problems = read_runs([str(source)])
        assert not problems and (early.name, late.name) == ("early", "late")
        assert early.config == {"model.lr": 1e-05, "model.name": "None of it"}
        assert early.series["val/acc1"][10] == 0.5 and early.series["val/acc1"][20] != early.series["val/acc1"][20]
        assert late.problems == [f"{database}: no figures of run late"]
    assert database.read_bytes() == before


def test_what_cannot_be_read_is_named_and_the_rest_is_read(database, tmp_path):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    (tmp_path / "text.txt").write_text("no database")
    assert find_mlflow_runs(tmp_path / "text.txt") == []
    runs, problems = read_runs([str(other), str(tmp_path / "text.txt"), str(database)])
    assert [run.name for run in runs] == ["early", "late"]
    assert problems[0].startswith(f"{other}: not an MLflow store that can be read (no such table")
    assert "no run in it" in problems[1] and all("\n" not in problem for problem in problems)


def test_a_damaged_event_file_is_read_as_far_as_it_goes(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "version_3") as writer:
        for step in range(200):
            writer.add_scalar("a", step / 2, step)
    (file,) = (tmp_path / "version_3").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    (tmp_path / "version_3/hparams.yaml").write_text("model: !!python/object:a.B {}\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / file.name).write_bytes(b"")
    (empty, run), problems = read_runs([str(tmp_path)])
    assert not problems and "no figures in its event files" in empty.problems[0]
    steps = run.series["a"]
    assert 50 < len(steps) < 150 and steps == {step: step / 2 for step in range(len(steps))} and run.config == {}
