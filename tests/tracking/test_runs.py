"""Reading runs of every kind, and what cannot be read."""

import json

import yaml

from bnnlight.tracking.runs import Run, read_runs


def write_run(folder, rows, config):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_directory_of_ours(tmp_path):
    rows = [{"step": 9, "train/loss": 2.0, "epoch": 0}, {"step": 10, "val/acc1": 0.5, "val/loss": 1.0}]
    rows += [{"step": 20, "val/acc1": 0.25, "val/loss": 0.5}, {"step": 20, "test/acc1": 0.375}]
    write_run(tmp_path / "a" / "b", rows, {"model": {"rank": 2}, "list": [1, 2], "nested": [{"x": 1}]})
    (run,), problems = read_runs([str(tmp_path / "a" / "b")])
    assert problems == [] and run.problems == []
    assert (run.name, run.run_id, run.num_starts) == ("a-b", "", 1)
    assert run.config == {"model.rank": 2, "list": [1, 2], "nested.0.x": 1}
    assert run.series["val/acc1"] == {10: 0.5, 20: 0.25}
    expected = {"best val/acc1": 0.5, "best val/loss": 0.5, "test/acc1": 0.375, "last train/loss": 2.0}
    assert run.results == expected


def test_offline_directories_and_ours_tell_the_same(tmp_path, write_offline):
    rows = [(10, {"a": 1.5, "val/acc1": 0.5}), (20, {"a": float("nan")})]
    write_offline(tmp_path / "run", rows)
    content = "".join(json.dumps({"step": step, **row}) + "\n" for step, row in rows)
    (tmp_path / "run" / "metrics.jsonl").write_text(content)
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    sources = [str(path) for path in (tmp_path / "run", tmp_path / "run/wandb", folder, file)]
    for source in sources:
        (run,), problems = read_runs([source])
        assert not problems and not run.problems
        assert run.series["val/acc1"] == {10: 0.5}
        assert run.series["a"][10] == 1.5 and run.series["a"][20] != run.series["a"][20]
    # named several times, W&B's files of one run are still one run
    assert len(read_runs(sources[1:])[0]) == 1


def test_of_two_starts_that_logged_the_same_step_the_later_one_counts(tmp_path, write_offline):
    # as by programs that do not look at what they have logged already
    write_offline(tmp_path / "first", [(10, {"a": 1.0}), (20, {"a": 2.0})], id="abcd1234", name="old")
    write_offline(tmp_path / "second", [(20, {"a": -2.0}), (30, {"a": -3.0})], id="abcd1234", name="new")
    for order in (("first", "second"), ("second", "first")):
        (run,), problems = read_runs([str(tmp_path / name / "wandb") for name in order])
        assert not problems
        assert (run.series["a"], run.name, run.num_starts) == ({10: 1.0, 20: -2.0, 30: -3.0}, "new", 2)


def test_a_cut_off_file_is_read_as_far_as_it_goes(tmp_path, write_offline):
    write_offline(tmp_path, [(step, {"a": step, "text": "x" * 50}) for step in range(200)])
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    (run,), problems = read_runs([str(tmp_path)])
    assert problems == [] and "incomplete" in run.problems[0] and str(path) in run.problems[0]
    steps = list(run.series["a"])
    assert 10 < len(steps) < 190 and steps == list(range(len(steps)))
    path.write_bytes(b"")
    _, (problem,) = read_runs([str(tmp_path)])
    assert str(path) in problem


def test_what_is_no_run_is_named_and_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    write_run(tmp_path / "good", [{"step": 0, "a": 1}], {})
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "bad", [{"a": 1}], {})
    write_run(tmp_path / "worse", [{"step": 0, "a": 1}], {})
    (tmp_path / "worse" / "config.yaml").write_text("a: [")
    sources = [str(tmp_path / name) for name in ("empty", "good", "bad", "worse", "absent")]
    runs, problems = read_runs(sources)
    assert [run.series for run in runs] == [{"a": {0: 1.0}}]
    for source, problem, word in zip(
        [s for s in sources if not s.endswith("good")],
        problems,
        ("no run in it", "line 1: not a row", "not valid YAML", "no such directory"),
        strict=True,
    ):
        assert source in problem and word in problem and "\n" not in problem


def test_a_run_on_the_server_is_read_through_its_api(monkeypatch):
    class Api:
        def __init__(self, **_):
            pass

        def run(self, path):
            assert path == "team/project/ab12"
            return self

        name, id, config = "fine-run", "ab12", {"model": {"rank": 2}}

        def scan_history(self):
            yield {"trainer/global_step": 5, "val/acc1": 0.5, "_step": 0, "picture": {"path": "x"}, "none": None}

    monkeypatch.setattr("wandb.Api", Api)
    for source in ("team/project/ab12", "https://wandb.ai/team/project/runs/ab12?nw=x"):
        (run,), problems = read_runs([source])
        assert not problems
        assert (run.name, run.config, run.series) == ("fine-run", {"model.rank": 2}, {"val/acc1": {5: 0.5}})


def test_a_project_without_permission_is_one_line(monkeypatch):
    class Api:
        def __init__(self, **_):
            pass

        def run(self, path):
            raise RuntimeError("Could not find run <Run team/project/ab12 (not found)>\nand more")

    monkeypatch.setattr("wandb.Api", Api)
    runs, problems = read_runs(["team/project/ab12"])
    assert runs == [] and problems == ["team/project/ab12: Could not find run <Run team/project/ab12 (not found)>"]


def test_a_run_without_a_logger_has_the_results_that_it_wrote(tmp_path):
    (tmp_path / "config.yaml").write_text("seed_everything: 0")
    (tmp_path / "results.json").write_text('{"results": {"test/acc1": 0.5, "note": "x"}, "seed": 0}')
    (run,), problems = read_runs([str(tmp_path)])
    assert not problems and run.results == {"test/acc1": 0.5} and run.has_figures and not run.series
    assert "without a logger" in run.problems[0]
    (tmp_path / "results.json").write_text("[]")
    runs, (problem,) = read_runs([str(tmp_path)])
    assert not runs and problem == f"{tmp_path}: left out: its results.json is not the results of a run"


def test_a_run_that_was_stopped_at_once_has_no_figures(tmp_path):
    (tmp_path / "config.yaml").write_text("seed_everything: 0")
    (run,), problems = read_runs([str(tmp_path)])
    assert not problems and not run.has_figures
    (tmp_path / "wandb/offline-run-20260101_000000-abc").mkdir(parents=True)
    file = tmp_path / "wandb/offline-run-20260101_000000-abc/run-abc.wandb"
    file.touch()
    (run,), problems = read_runs([str(tmp_path)])
    assert not problems and not run.has_figures and str(file) in run.problems[0]


def test_of_an_error_the_smallest_is_the_best():
    run = Run("x", "", series={"val/nme": {1: 0.25, 2: 0.5}, "val/loss": {1: 2.0, 2: 1.0}, "val/ap": {1: 0.25, 2: 0.5}})
    assert run.finish().results == {"best val/nme": 0.25, "best val/loss": 1.0, "best val/ap": 0.5}
