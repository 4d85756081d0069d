"""W&B runs, offline, read back with W&B's own reader."""

import json
import os
import sys

import pytest
import wandb
from fixtures.processes import run_to_end
from PIL import Image

from bnnlight.tracking import MetricsFile, WandbRun
from bnnlight.tracking.fragments import find_fragments, read_fragment
from bnnlight.tracking.runs import read_offline


def fragments(run_dir):
    return [read_fragment(path) for path in find_fragments(run_dir)]


def pairs(fragment, key):
    return [(row["trainer/global_step"], row[key]) for row in fragment.rows if key in row]


def test_rows_config_and_best_values(tmp_path, write_offline):
    rows = [(0, {"val/acc1": 0.5, "val/loss": 3.0}), (10, {"val/acc1": 0.75, "val/loss": 1.0})]
    rows += [(20, {"val/acc1": 0.25, "val/loss": 2.0, "bnn/flip_rate/a.b": 0.125})]
    write_offline(tmp_path, rows)
    (found,) = fragments(tmp_path)
    assert pairs(found, "val/acc1") == [(0, 0.5), (10, 0.75), (20, 0.25)]
    assert pairs(found, "bnn/flip_rate/a.b") == [(20, 0.125)]
    assert [row["_step"] for row in found.rows] == [0, 1, 2]
    assert found.config == {"lr": 0.1, "nested": {"rank": 2}}
    assert found.summary["val/acc1"] == {"max": 0.75, "last": 0.25}
    assert found.summary["val/loss"] == {"min": 1.0, "last": 2.0}
    assert found.exit_code == 0 and not found.problems


def test_a_run_is_one_over_several_starts(tmp_path, write_offline):
    write_offline(tmp_path, [(10, {"a": 1.0, "b": 1.0}), (20, {"a": 2.0})])
    # from a checkpoint at step 15: 20 comes again, and what was not yet logged of it
    write_offline(tmp_path, [(20, {"a": -2.0, "b": 2.0}), (30, {"a": 3.0, "b": 3.0})])
    first, second = fragments(tmp_path)
    assert first.run_id == second.run_id
    assert pairs(second, "a") == [(30, 3.0)]
    assert pairs(second, "b") == [(20, 2.0), (30, 3.0)]
    # W&B's own count goes on too
    assert [row["_step"] for row in (*first.rows, *second.rows)] == [0, 1, 2, 3]
    (run,), problems = read_offline([("x", path) for path in find_fragments(tmp_path)])
    assert run.series["a"] == {10: 1.0, 20: 2.0, 30: 3.0} and run.num_starts == 2 and not problems


def test_rows_that_a_kill_took_are_sent_again_from_the_metrics_file(tmp_path, write_offline):
    rows = [(step, {"a": step / 8}) for step in range(0, 50, 10)]
    file = MetricsFile(tmp_path)
    for step, row in rows:
        file.log_metrics(row, step)
    write_offline(tmp_path, rows, end="killed")
    lost = find_fragments(tmp_path)
    # W&B writes every 15 seconds: what it has written by now depends on the machine, and here it is nothing
    lost[0].write_bytes(b"")
    with pytest.raises(ValueError, match="killed"):
        read_fragment(lost[0])
    write_offline(tmp_path, [(40, {"a": -1.0}), (50, {"a": 50 / 8})])
    (run,), problems = read_offline([("x", path) for path in find_fragments(tmp_path)])
    assert run.series["a"] == {step: step / 8 for step in range(0, 60, 10)} and run.num_starts == 2
    assert len(problems) == 1 and str(lost[0]) in problems[0]
    assert len({path.name for path in find_fragments(tmp_path)}) == 1, "another id"


def test_pictures_that_a_kill_took_are_sent_again(tmp_path, write_offline):
    (tmp_path / "pictures").mkdir()
    for name, width in (("val-0000010", 10), ("val-0000020", 20), ("val-0000030", 30), ("test", 5)):
        Image.new("RGB", (width, 4)).save(tmp_path / f"pictures/{name}.png")
    half = tmp_path / "pictures/val-0000030.png"
    half.write_bytes(half.read_bytes()[:40])
    write_offline(tmp_path, [(10, {"val/pictures": [wandb.Image(Image.new("RGB", (10, 4)))]})])
    # stopped at step 20 with its sheet drawn; the validation there is done again, and so is the one whose sheet is half
    write_offline(tmp_path, [(s, {"val/pictures": [wandb.Image(Image.new("RGB", (s, 4)))]}) for s in (20, 30)])
    sheets = [sheet for fragment in fragments(tmp_path) for sheet in pairs(fragment, "val/pictures")]
    widths = [(step, sheet["width"]) for step, sheet in sheets]
    assert widths == [(10, 10), (20, 20), (30, 30)]


def test_what_the_config_leaves_open_comes_from_wandbs_environment(tmp_path, write_offline):
    env = {"WANDB_PROJECT": "p", "WANDB_NAME": "n", "WANDB_RUN_GROUP": "g", "WANDB_TAGS": "s,t", "WANDB_NOTES": "o"}
    write_offline(tmp_path / "env", [(0, {"a": 1})], env=env.items())
    given = {"project": "P", "name": "N", "group": "G", "tags": ["S"], "notes": "O", "entity": "E", "id": "abcd"}
    write_offline(tmp_path / "given", [(0, {"a": 1})], env=env.items(), **given)
    records = {name: run_record(tmp_path / name) for name in ("env", "given")}
    expected = {"project": "p", "display_name": "n", "run_group": "g", "tags": ["s", "t"], "notes": "o"}
    assert records["env"].items() >= expected.items()
    expected = {"project": "P", "display_name": "N", "run_group": "G", "tags": ["S"], "notes": "O"}
    assert records["given"].items() >= (expected | {"entity": "E", "run_id": "abcd"}).items()


def run_record(run_dir):
    import subprocess
    import sys

    (path,) = find_fragments(run_dir)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return next(record["run"] for record in map(json.loads, lines) if record["type"] == "run")


def test_the_key_is_nowhere_on_the_disk(tmp_path, write_offline):
    key = "0123456789abcdef" * 2 + "deadbeef"
    write_offline(tmp_path, [(0, {"a": 1})], env={"WANDB_API_KEY": key}.items())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if key.encode() in path.read_bytes()]


def test_a_server_out_of_reach_at_the_start_leaves_an_offline_run(tmp_path, monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the port of "discard": nobody listens
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "8")  # also what the offline run may take to begin
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbRun(str(tmp_path))
    assert logger.version is None
    logger.log_metrics({"a": 1.0}, 5)
    logger.finish()
    wandb.teardown()
    found = [read_fragment(path) for path in find_fragments(tmp_path) if "offline-run" in path.parent.name]
    assert [pairs(fragment, "a") for fragment in found] == [[(5, 1.0)]]
    assert [fragment.run_id for fragment in found] == [logger.version]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B:")]
    assert len(lines) == 1 and "synced later" in lines[0]


def said(stderr):
    return [line for line in stderr.splitlines() if line.startswith("W&B:")]


def test_a_server_that_vanishes_leaves_the_run_on_the_disk(tmp_path, write_offline, vanishing_server):
    rows = [(step, {"a": step / 4}) for step in range(0, 40, 10)]
    online = {"WANDB_MODE": "online", "WANDB_BASE_URL": vanishing_server, "WANDB_API_KEY": "0" * 40}
    (line,) = said(write_offline(tmp_path, rows, env=online.items(), finish_timeout_s=2))
    assert f"wandb beta sync --no-skip-online {tmp_path / 'wandb'}" in line
    (found,) = fragments(tmp_path)
    assert not found.path.parent.name.startswith("offline")
    assert pairs(found, "a") == [(step, step / 4) for step in range(0, 40, 10)]


def test_a_breakdown_of_wandb_itself_does_not_end_the_training(tmp_path, write_offline):
    rows = [(step, {"val/acc1": step / 64}) for step in range(40)]
    (line,) = said(write_offline(tmp_path, rows, end="core killed"))
    assert "broke down" in line and "metrics.jsonl" in line


WITHOUT_WANDB = """
import pickle, sys
from bnnlight.tracking import WandbRun
logger = WandbRun(sys.argv[1])
logger.log_metrics({"a": 1.0}, 0)
other = pickle.loads(pickle.dumps(logger))
other.log_metrics({"a": 2.0}, 1)
other.finish()
"""


def test_a_logger_without_wandb_goes_to_other_processes(tmp_path):
    # a process of its own: W&B reads its environment once
    done = run_to_end([sys.executable, "-c", WITHOUT_WANDB, tmp_path], {**os.environ, "WANDB_MODE": "disabled"})
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.wandb"))
