"""`bnnlight matrix` with real runs on digits: made, reported, stopped, taken up again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import yaml
from PIL import Image

METHODS = {
    "dense": {"options": {"model.backbone.latent": {"class_path": "bnnlight.nn.Dense"}}},
    "Tucker": {"rate_of": "dense"},
}
SMALL = {
    "trainer.max_epochs": 1, "trainer.limit_train_batches": 3, "trainer.accelerator": "cpu", "pictures.count": 0,
    "model.backbone.width": 0.0625, "trainer.logger": "bnnlight.tracking.MetricsFile", "data.num_workers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def write(tmp_path_factory, configs):
    def write_(**changes):
        plan = {
            "title": "Two on digits", "config": str(configs / "quickstart.yaml"), "options": SMALL, "metric": "acc1",
            "baseline": "dense", "seeds": [0, 1], "methods": METHODS,
            "search": {"option": "model.optimizer.lr", "values": [0.001, 0.01], "seeds": [5]},
        }  # fmt: skip
        path = tmp_path_factory.mktemp("plan") / "plan.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in (plan | changes).items() if v is not None}))
        return path

    return write_


STARTED = []


@pytest.fixture(scope="module", autouse=True)
def _none_is_left():
    yield
    for process in STARTED:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def start(plan, runs, *args, path=()):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT", "PL_"))}
    env |= {"PYTHONPATH": os.pathsep.join([*map(str, path), *sys.path])}
    command = [sys.executable, "-m", "bnnlight", "matrix", str(plan), "--runs", str(runs), "--threads", "1", *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    STARTED.append(subprocess.Popen(command, env=env, cwd=runs.parent, **pipes))
    return STARTED[-1]


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def made(write, tmp_path_factory):
    """Plan, folder and output of a matrix of six real runs."""
    plan, runs = write(), tmp_path_factory.mktemp("made") / "runs"
    process = start(plan, runs, "--jobs", "2")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return plan, runs, out


def test_the_report_is_what_the_runs_say(made):
    _, runs, out = made
    report = read(runs / "report.json")
    searched = {
        lr: read(runs / f"dense/search_lr{lr:g}_seed5/results.json")["results"]["best val/acc1"] for lr in (0.001, 0.01)
    }
    best = max(searched, key=searched.get)
    assert not any("test/acc1" in path.read_text() for path in runs.glob("dense/search*/results.json"))
    figures = {}
    for name in ("dense", "tucker"):
        records = [read(runs / f"{name}/lr{best:g}_seed{seed}/results.json") for seed in (0, 1)]
        figures[name] = [100 * record["results"]["test/acc1"] for record in records]
    for row in report["methods"]:
        own = figures[row["method"].lower()]
        assert row["search"]["value"] == best and row["search"]["edge"]
        assert [row["by_seed"][seed] for seed in "01"] == pytest.approx(own)
        assert row["test"]["mean"] == pytest.approx(np.mean(own))
        # Student's t for one degree of freedom is 12.706
        assert row["test"]["half_interval"] == pytest.approx(12.706 * np.std(own, ddof=1) / 2**0.5, rel=1e-3, abs=1e-9)
        assert row["seconds"] > 0
        config = yaml.safe_load((runs / row["method"].lower() / f"lr{best:g}_seed1/config.yaml").read_text())
        assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == best and config["seed_everything"] == 1
    rows = {row["method"]: row for row in report["methods"]}
    difference = rows["Tucker"]["difference"]
    if np.ptp(np.subtract(figures["tucker"], figures["dense"])) > 1e-9:
        assert difference["p"] == pytest.approx(scipy.stats.ttest_rel(figures["tucker"], figures["dense"]).pvalue)
    assert difference["p_holm"] == difference["p"]  # a family of one
    assert rows["dense"]["difference"] is None
    # one line a run, with its figure, and no bar, as this is no terminal
    assert len(re.findall(r"^\[\d of 6\] .*, seed \d.*/acc1 \d+\.\d\d %, \d+ (?:s|min)$", out, re.M)) == 6


def test_trained_numbers_are_those_of_the_network(made):
    _, runs, _ = made
    trained = {row["method"]: row["trained_parameters"] for row in read(runs / "report.json")["methods"]}
    for name, count in trained.items():
        checkpoint = torch.load(next(runs.glob(f"{name.lower()}/lr*_seed0/checkpoints/last.ckpt")), weights_only=True)
        # the optimizer keeps two numbers for each that it trains
        states = checkpoint["optimizer_states"][0]["state"].values()
        assert count == sum(state["exp_avg"].numel() for state in states) > 0


def test_page_and_picture(made):
    plan, runs, _ = made
    page = (runs / "report.md").read_text()
    assert "| **dense** |" in page and "(edge, of dense)" in page and "![Two on digits](report.png)" in page
    assert f"bnnlight matrix {plan}`" in page and f"torch {torch.__version__}" in page and "1 thread each" in page
    assert Image.open(runs / "report.png").size[0] > 1000
    assert not list(runs.rglob("*.part"))


def test_what_is_done_is_taken_as_it_is(made, bnnlight):
    plan, runs, _ = made
    logs = {path: path.stat().st_mtime_ns for path in runs.rglob("log.txt")}
    code, out, err = bnnlight("matrix", plan, "--runs", runs)
    assert code == 0 and out.startswith("report: "), err
    assert len(logs) == 6 and {path: path.stat().st_mtime_ns for path in runs.rglob("log.txt")} == logs


SLOW = """
import time
import lightning as L


class Slow(L.Callback):
    def on_train_batch_end(self, *args):
        time.sleep(0.2)
"""


def test_stopped_killed_and_taken_up_again(write, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    many = {"trainer.max_epochs": 2, "trainer.limit_train_batches": 12, "trainer.log_every_n_steps": 1}
    options = SMALL | many | {"trainer.callbacks": [{"class_path": "slow.Slow"}]}
    plan = write(options=options, methods={"dense": METHODS["dense"]}, seeds=[0], search=None)
    runs, run = tmp_path / "runs", tmp_path / "runs/dense/seed0"

    def steps():
        path = run / "metrics.jsonl"
        lines = path.read_text().splitlines(True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [row["step"] for row in rows if "train/loss" in row]

    def wait_for(process, more):
        end, before = time.monotonic() + 300, len(steps())
        while len(steps()) < before + more:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)

    first = start(plan, runs, path=[tmp_path])
    wait_for(first, 3)
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=600)
    assert first.returncode == 75 and "stopped by SIGTERM, 0 runs made; to go on: bnnlight matrix" in err, (out, err)
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert 0 < saved < 24 and "saved at step" in (run / "log.txt").read_text()

    second = start(plan, runs, path=[tmp_path])
    wait_for(second, 3)
    (child,) = map(int, Path(f"/proc/{second.pid}/task/{second.pid}/children").read_text().split())
    second.kill()  # it can say nothing to its run, which hears of it from the system
    second.communicate()
    end = time.monotonic() + 60
    while os.path.exists(f"/proc/{child}") and time.monotonic() < end:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{child}")
    later = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert saved < later < 24

    third = start(plan, runs, path=[tmp_path])
    out, err = third.communicate(timeout=600)
    assert third.returncode == 0, err
    assert read(run / "results.json")["num_steps"] == 24
    assert steps() == sorted(set(steps())) and len(steps()) == 24
    assert (run / "log.txt").read_text().count("run directory:") == 3


def test_a_run_that_another_command_makes_is_left_to_it(made, bnnlight, tmp_path):
    plan, runs, _ = made
    shutil.copytree(runs, tmp_path / "runs")
    run = next(tmp_path.glob("runs/tucker/lr*_seed0"))
    (run / "results.json").unlink()
    (tmp_path / "runs/report.runs.jsonl").unlink()
    # by another process, as a process's own locks do not keep itself out; it ends when its input does
    hold = f"import fcntl, sys; f = open({str(run / '.lock')!r}, 'a+'); fcntl.lockf(f, fcntl.LOCK_EX); print(); input()"
    holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "\n"
    code, out, _ = bnnlight("matrix", plan, "--runs", tmp_path / "runs")
    holder.communicate("\n")
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("[failed]")]
    assert "Tucker" in line and "is in use by another run" in line
    code, out, err = bnnlight("matrix", plan, "--runs", tmp_path / "runs")
    assert code == 0 and "[1 of 1] Tucker" in out, err


def test_help_has_an_example_that_is_there(bnnlight, configs):
    code, out, _ = bnnlight("matrix", "--help")
    (example,) = re.findall(r"Example: bnnlight matrix configs/(\S+)", out)
    assert code == 0 and (configs / example).is_file()
