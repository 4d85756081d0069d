"""What stands in a ledger is not made again; a stand-in answers for `bnnlight fit`."""

import json
import shutil

import pytest

from bnnlight.experiment import matrix_check

# the first as earlier versions called it
LOGGED = [{"step": 100, "bnn/flip_rate": 0.25}, {"step": 200, "bnn/flip_rate_mean": 0.125}]


@pytest.fixture
def matrix(bnnlight, write, content, fake, tmp_path, monkeypatch):
    """Run the verb on a plan, with the folder of the runs and the report's place; without building its networks."""
    monkeypatch.setattr(matrix_check, "check", lambda plan, names, *_: {name: {"trained": 9} for name in names})

    def run(*args, runs="runs", output="out/table", plan=content):
        return bnnlight("matrix", write(plan), "--runs", tmp_path / runs, "--output", tmp_path / output, *args)

    return run


@pytest.fixture
def lines(tmp_path):
    """The lines of a ledger, by the name of the run."""

    def read(name="out/table"):
        found = map(json.loads, (tmp_path / f"{name}.runs.jsonl").read_text().splitlines())
        return {line["run"]: line for line in found}

    return read


def report(tmp_path, name="out/table"):
    return json.loads((tmp_path / f"{name}.json").read_text())


def test_the_report_is_the_same_without_the_folders_and_nothing_runs(matrix, fake, starts, lines, tmp_path):
    fake(**{"search_lr0.01_seed7": "diverge"})
    assert matrix()[0] == 0
    for folder in (tmp_path / "runs").glob("*/lr*"):
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOGGED))
    assert matrix("--report")[0] == 0
    before = report(tmp_path)
    assert before["methods"][0]["evidence"] == {"flips_first": 0.25, "flips_last": 0.125}
    shutil.rmtree(tmp_path / "runs")
    code, _, err = matrix()
    assert code == 0, err
    assert starts(tmp_path / "runs") == {}
    assert report(tmp_path) == before and before["methods"][0]["search"]["diverged"] == [0.01]
    assert before["repeat"]["command"].endswith(f".yaml --output {tmp_path / 'out/table'}")
    line = lines()["dense/lr0.03_seed1"]
    # of the stand-in: 0.5 + seed / 100, and with Dense 0.1 + seed² / 1000 more
    assert line["results"]["results"]["test/acc1"] == pytest.approx(0.611)
    assert (line["method"], line["value"], line["seed"], line["trained"]) == ("dense", 0.03, 1, 9)
    assert line["asked"]["trainer.max_epochs"] == 2 and line["results"]["commit"] == "abc"


def test_what_was_seen_of_a_run_outlives_its_metrics_but_not_its_results(matrix, lines, tmp_path):
    assert matrix()[0] == 0
    folder = tmp_path / "runs/dense/lr0.01_seed1"
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOGGED))
    assert matrix("--report")[0] == 0
    seen = {"flips_first": 0.25, "flips_last": 0.125}
    assert lines()["dense/lr0.01_seed1"]["evidence"] == seen
    (folder / "metrics.jsonl").unlink()
    assert matrix("--report")[0] == 0
    assert lines()["dense/lr0.01_seed1"]["evidence"] == seen
    (folder / "results.json").write_text((folder / "results.json").read_text().replace("0.6", "0.75"))
    assert matrix("--report")[0] == 0
    assert lines()["dense/lr0.01_seed1"]["evidence"] == {}


def test_each_run_stands_there_as_soon_as_it_is_done(matrix, fake, lines, tmp_path):
    fake(**{"lr0.01_seed1": "fail"})
    assert matrix("--only", "dense")[0] == 1
    assert set(lines()) == {f"dense/{name}" for name in ("search_lr0.01_seed7", "search_lr0.03_seed7", "lr0.01_seed0")}
    assert len((tmp_path / "out/table.runs.jsonl").read_text().splitlines()) == 3


def test_two_machines_share_the_work(matrix, starts, lines, tmp_path):
    assert matrix("--only", "dense", runs="here", output="a")[0] == 0
    assert matrix("--only", "Tucker, rank ½", runs="there", output="b")[0] == 0
    (tmp_path / "out").mkdir()
    both = [(tmp_path / f"{name}.runs.jsonl").read_text() for name in "ab"]
    # a line twice, and an older one of the same run before it
    old = json.loads(both[0].splitlines()[-1])
    old["results"]["results"]["test/acc1"] = 0.0
    (tmp_path / "out/table.runs.jsonl").write_text(json.dumps(old) + "\n" + "".join(both) + both[1])
    code, _, err = matrix()
    assert code == 0, err
    assert starts(tmp_path / "runs") == {} and len(lines()) == 8
    rows = {row["method"]: row["by_seed"] for row in report(tmp_path)["methods"]}
    assert rows["dense"] == pytest.approx({"0": 60.0, "1": 61.1})
    assert rows["Tucker, rank ½"] == pytest.approx({"0": 50.0, "1": 51.0})


def test_what_the_plan_has_no_more_is_kept(matrix, content, lines):
    assert matrix()[0] == 0
    before = lines()
    content["seeds"] = [1, 2]
    del content["methods"]["dense"]
    assert matrix()[0] == 0
    assert {name: line for name, line in lines().items() if name in before} == before
    assert set(lines()) - set(before) == {"tucker-rank-1-2/lr0.01_seed2"}


def test_a_run_in_its_folder_goes_before_its_line(matrix, lines, tmp_path):
    assert matrix()[0] == 0
    done = tmp_path / "runs/dense/lr0.01_seed0/results.json"
    done.write_text(done.read_text().replace("0.6", "0.75"))
    assert matrix()[0] == 0
    assert report(tmp_path)["methods"][0]["by_seed"]["0"] == pytest.approx(75.0)
    assert lines()["dense/lr0.01_seed0"]["results"]["results"]["test/acc1"] == pytest.approx(0.75)


def test_other_options_than_those_of_the_line_are_named(matrix, content, starts, tmp_path):
    assert matrix()[0] == 0
    shutil.rmtree(tmp_path / "runs")
    content["options"]["trainer.max_epochs"] = 5
    for args in ((), ("--report",)):
        code, _, err = matrix(*args)
        assert code == 2 and len(err.splitlines()) == 1
        for part in ("dense, at 0.01, seed 0: ", "out/table.runs.jsonl", "trainer.max_epochs: 2 -> 5", "--output"):
            assert part in err
    assert starts(tmp_path / "runs") == {}
    assert matrix(output="out/other")[0] == 0 and len(starts(tmp_path / "runs")) == 8


@pytest.mark.parametrize("damage", ["cut off", "merge", "not done", "other"])
def test_a_damaged_line_is_named_and_the_file_left_alone(matrix, starts, tmp_path, damage):
    assert matrix()[0] == 0
    shutil.rmtree(tmp_path / "runs")
    file = tmp_path / "out/table.runs.jsonl"
    lines = file.read_text().splitlines()
    record = json.loads(lines[2])
    lines[2] = {
        "cut off": lines[2][:-40],
        "merge": "<<<<<<< HEAD",
        "not done": json.dumps({key: value for key, value in record.items() if key != "results"}),
        "other": "[3]",
    }[damage]
    file.write_text("\n".join(lines))
    before = file.read_bytes()
    code, _, err = matrix()
    assert code == 2 and len(err.splitlines()) == 1 and "table.runs.jsonl, line 3: not the record of a run" in err
    assert file.read_bytes() == before and starts(tmp_path / "runs") == {}
