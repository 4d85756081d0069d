"""`bnnlight matrix` with real runs on digits: made, reported, stopped, taken up again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import yaml
from fixtures.processes import Started, is_running, wait_until
from fixtures.stopping import wait_for_signal, waiting
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
        process.close()


def start(plan, runs, *args):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT", "PL_"))}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "bnnlight", "matrix", plan, "--runs", runs, "--threads", "1", *args]
    STARTED.append(Started(command, env=env, cwd=runs.parent))
    return STARTED[-1]


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def made(write, tmp_path_factory):
    """Plan, folder and output of a matrix of six real runs."""
    plan, runs = write(), tmp_path_factory.mktemp("made") / "runs"
    process = start(plan, runs, "--jobs", "2")
    assert process.ended() == 0, process.err
    return plan, runs, process.out


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
    # one line a run, with its figure, and no bar, as this is not a terminal
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


def test_optimizers_are_rows_with_their_own_class_and_processor_time(write, tmp_path):
    sgd = {"model.optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05, "momentum": 0.5}}}
    optimizers = {"AdamW": None, "SGD": {"options": sgd}}
    plan = write(
        methods={"dense": METHODS["dense"]}, seeds=[0], search=None, optimizers=optimizers, reach="baseline"
    )  # fmt: skip
    runs = tmp_path / "runs"
    process = start(plan, runs)
    assert process.ended() == 0, process.err
    assert "[2 of 2] dense, SGD, seed 0: test/acc1" in process.out
    classes = {}
    for name in ("dense", "dense-sgd"):
        optimizer = yaml.safe_load((runs / name / "seed0/config.yaml").read_text())["model"]["init_args"]["optimizer"]
        classes[name] = (optimizer["class_path"], optimizer["init_args"]["lr"])
    assert classes == {"dense": ("torch.optim.AdamW", 0.01), "dense-sgd": ("torch.optim.SGD", 0.05)}
    # one epoch, one validation: the baseline reaches its own last figure there
    rows = [json.loads(line) for line in (runs / "dense/seed0/metrics.jsonl").read_text().splitlines()]
    (seconds,) = [row["time/processor"] for row in rows if "val/acc1" in row]
    report = read(runs / "report.json")
    base, other = report["methods"]
    assert seconds > 0 and base["reach"]["by_seed"] == {"0": seconds}
    assert report["reach"]["target"] == 100 * read(runs / "dense/seed0/results.json")["results"]["last val/acc1"]
    assert (other["optimizer"], other["method"], other["base"]) == ("SGD", "dense, SGD", "dense")
    difference = other["by_seed"]["0"] - base["by_seed"]["0"]
    (pair,) = report["pairs"]["optimizers"]
    assert other["difference"]["mean"] == pair["mean"] == pytest.approx(difference)


@pytest.mark.slow
def test_stopped_killed_and_taken_up_again(write, tmp_path):
    many = {"trainer.max_epochs": 2, "trainer.limit_train_batches": 12, "trainer.log_every_n_steps": 1}
    options = SMALL | many | {"trainer.callbacks": wait_for_signal(3, 9)}
    plan = write(options=options, methods={"dense": METHODS["dense"]}, seeds=[0], search=None)
    runs, run = tmp_path / "runs", tmp_path / "runs/dense/seed0"

    first = start(plan, runs)
    first.wait_until(waiting(run, 3).exists)
    os.kill(first.pid, signal.SIGTERM)
    assert first.ended() == 75, first.err
    assert "stopped by SIGTERM, 0 runs made; to go on: bnnlight matrix" in first.err
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert saved in (3, 4) and "saved at step" in (run / "log.txt").read_text()

    second = start(plan, runs)
    second.wait_until(waiting(run, 9).exists)
    (child,) = map(int, Path(f"/proc/{second.pid}/task/{second.pid}/children").read_text().split())
    os.kill(second.pid, signal.SIGKILL)  # it can say nothing to its run, which hears of it from the system
    wait_until(lambda: not is_running(child))
    later = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert later in (9, 10)

    third = start(plan, runs)
    assert third.ended() == 0, third.err
    assert read(run / "results.json")["num_steps"] == 24
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "train/loss" in row]
    assert steps == sorted(set(steps)) and len(steps) == 24
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
    (example,) = re.findall(r"Example: bnnlight matrix (\S+)", out)
    assert code == 0 and (configs / f"{example}.yaml").is_file()
