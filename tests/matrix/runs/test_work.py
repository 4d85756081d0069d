"""Which runs are made, with what, and how the command ends; a stand-in answers for `bnnlight fit`."""

import json
import os
import shutil
import signal
import threading

import pytest
from fixtures.processes import wait_until

from bnnlight.console import errors
from bnnlight.experiment import matrix_check
from bnnlight.matrix.runs import child, machine


@pytest.fixture
def checked(bnnlight, write, content, fake, tmp_path):
    """Run the verb on a plan in this process."""

    def run(*args, plan=content):
        return bnnlight("matrix", write(plan), "--runs", tmp_path / "runs", *args)

    return run


@pytest.fixture
def matrix(checked, monkeypatch):
    """As `checked`, but for the networks, which are not built before: it takes a second a method."""
    monkeypatch.setattr(matrix_check, "check", lambda plan, names, *_: {name: {"trained": 9} for name in names})
    return checked


@pytest.fixture
def report(tmp_path):
    return lambda: json.loads((tmp_path / "runs/report.json").read_text())


def options(told):
    return dict(word.removeprefix("--").split("=", 1) for word in told["argv"] if "=" in word)


def test_searches_then_runs_at_the_best_rate_and_again_nothing(matrix, starts, report, tmp_path):
    code, out, err = matrix("--", "--data.root=here")
    assert code == 0, err
    made = starts(tmp_path / "runs/dense")
    assert set(made) == {"search_lr0.01_seed7", "search_lr0.03_seed7", "lr0.01_seed0", "lr0.01_seed1"}
    assert set(starts(tmp_path / "runs/tucker-rank-1-2")) == set(made)
    found = options(made["search_lr0.03_seed7"][0])
    assert (found["model.optimizer.lr"], found["seed_everything"], found["test_after_fit"]) == ("0.03", "7", "false")
    # the search's own epochs, and the option for all
    assert (found["trainer.max_epochs"], found["data.root"]) == ("1", "here")
    found = options(made["lr0.01_seed1"][0])
    assert (found["model.optimizer.lr"], found["seed_everything"], found["test_after_fit"]) == ("0.01", "1", "true")
    assert found["trainer.max_epochs"] == "2" and "Dense" in found["model.backbone.latent"]
    assert out.count("best val/acc1 90.00 %") == 2 and "[8 of 8]" in out
    # method by method, so that a long matrix has whole rows early
    made_in_order = [line.split("] ")[1].split(", ")[0] for line in out.splitlines() if line.startswith("[")]
    assert made_in_order == ["dense"] * 4 + ["Tucker"] * 4
    rows = {row["method"]: row for row in report()["methods"]}
    # of the stand-in: 0.5 + seed / 100, and with Dense 0.1 + seed² / 1000 more
    assert rows["dense"]["by_seed"] == pytest.approx({"0": 60.0, "1": 61.1})
    assert rows["dense"]["difference"]["by_seed"] == pytest.approx({"0": 10.0, "1": 10.1})
    assert rows["Tucker, rank ½"]["test"]["mean"] == pytest.approx(50.5)
    begun = (tmp_path / "runs/report.json").stat().st_mtime_ns
    code, out, _ = matrix()
    assert code == 0 and out.startswith("report: ")
    assert all(len(told) == 1 for told in starts(tmp_path / "runs").values())
    assert (tmp_path / "runs/report.json").stat().st_mtime_ns > begun


def test_a_value_a_seed_or_a_method_more_runs_what_is_missing_alone(matrix, content, starts, tmp_path):
    assert matrix()[0] == 0
    content["search"]["values"].append(0.1)
    content["methods"]["dense"]["seeds"] = [0, 1, 2]
    content["methods"]["low"] = {"options": {"model.backbone.latent.rank": 0.25}, "rate_of": "dense", "seeds": [0]}
    code, out, err = matrix()
    assert code == 0, err
    assert "[4 of 4]" in out
    assert set(starts(tmp_path / "runs/low")) == {"lr0.01_seed0"}
    every = [told for folder in ("dense", "tucker-rank-1-2") for told in starts(tmp_path / "runs" / folder).values()]
    assert sorted(map(len, every)) == [1] * 11


def test_changed_options_are_named_and_nothing_runs(matrix, content, tmp_path):
    assert matrix()[0] == 0
    shutil.rmtree(tmp_path / "runs/dense/lr0.01_seed0")
    (tmp_path / "runs/report.runs.jsonl").unlink()
    content["options"]["trainer.max_epochs"] = 5
    for args in ((), ("--report",)):
        code, _, err = matrix(*args)
        assert code == 2 and len(err.splitlines()) == 1
        assert "dense, at 0.01, seed 1" in err and "trainer.max_epochs: 2 -> 5" in err and "runs/dense/lr0" in err
    assert not (tmp_path / "runs/dense/lr0.01_seed0").exists()
    content["options"]["trainer.max_epochs"] = 2
    # where the data lie makes no other run
    assert matrix("--report", "--", "--data.root=elsewhere", "--data.num_workers=0")[0] == 0
    content["methods"]["dense"]["options"] = {"model.backbone.width": 0.25}
    code, _, err = matrix("--report")
    assert code == 2 and "model.backbone.width: 0.5 -> 0.25 and 1 more" in err


def test_an_edited_overlay_is_another_run(matrix, content, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("model: {init_args: {backbone: {init_args: {width: 0.25}}}}")
    content["methods"]["dense"]["configs"] = ["overlay.yaml"]
    assert matrix("--only", "dense")[0] == 0
    overlay.write_text("model: {init_args: {backbone: {init_args: {width: 0.125}}}}")
    code, _, err = matrix("--report")
    assert code == 2 and "model.backbone.width: 0.25 -> 0.125" in err


def test_a_folder_with_a_run_of_other_making_is_refused(matrix, starts, tmp_path):
    (tmp_path / "runs/dense/search_lr0.01_seed7").mkdir(parents=True)
    (tmp_path / "runs/dense/search_lr0.01_seed7/config.yaml").write_text("a: run")
    code, _, err = matrix()
    assert code == 2 and "`bnnlight matrix` did not make" in err and starts(tmp_path / "runs") == {}


def test_a_failed_run_stops_no_other_and_is_tried_again(matrix, fake, starts, report, tmp_path):
    fake(**{"lr0.01_seed1": "fail"})
    code, out, err = matrix()
    assert code == 1
    log = tmp_path / "runs/dense/lr0.01_seed1/log.txt"
    assert f"[failed] dense, at 0.01, seed 1: the data are gone; log: {log}" in out.splitlines()
    assert log.read_text() == "hello\nbnnlight fit: error: the data are gone\n"
    assert err.splitlines() == ["bnnlight matrix: error: 2 runs failed, see above; the same command tries again"]
    row = report()["methods"][0]
    assert (list(row["by_seed"]), row["seeds_asked"], row["test"]["half_interval"]) == (["0"], [0, 1], None)
    assert "1 of 2 seeds" in (tmp_path / "runs/report.md").read_text()
    fake()
    code, out, _ = matrix()
    assert code == 0 and "[2 of 2]" in out
    assert len(starts(tmp_path / "runs/dense")["lr0.01_seed1"]) == 2


def test_a_failed_search_run_keeps_its_method_from_choosing(matrix, fake, starts, tmp_path):
    fake(**{"search_lr0.03_seed7": "fail"})
    code, out, _ = matrix()
    assert code == 1 and out.count("best val/acc1") == out.count("[failed]") == 2
    assert not list((tmp_path / "runs").glob("*/lr*"))
    text = (tmp_path / "runs/report.md").read_text()
    assert text.count("search: 1 of 2 runs") == 2 and text.count("0 of 2 seeds") == 2


def test_fit_ends_with_the_code_that_the_matrix_takes_for_divergence():
    assert errors.explain(FloatingPointError("the loss is nan")) == (child.DIVERGED, "the loss is nan")


def test_a_search_run_that_diverges_counts_as_the_worst(matrix, fake, starts, report, tmp_path):
    fake(**{"search_lr0.01_seed7": "diverge"})  # the rate that would be best
    code, out, err = matrix()
    assert code == 0, err
    assert out.count("at 0.01, seed 7, search: diverged, ") == 2 and "[8 of 8]" in out
    kept = json.loads((tmp_path / "runs/dense/search_lr0.01_seed7/run.json").read_text())
    assert kept["diverged"] == "epoch 0, batch 3: the loss is nan" and kept["seconds"] > 0
    assert all(row["search"]["value"] == 0.03 for row in report()["methods"])
    assert "0.03: 88.00, 0.01: diverged" in (tmp_path / "runs/report.md").read_text()
    # it is not tried again
    assert matrix()[0] == 0 and len(starts(tmp_path / "runs/dense")["search_lr0.01_seed7"]) == 1


def test_a_method_whose_values_all_diverge_makes_no_runs(matrix, fake, starts, tmp_path):
    fake(**{"search_lr0.01_seed7": "diverge", "search_lr0.03_seed7": "diverge"})
    code, out, err = matrix()
    assert code == 0, err
    assert "[4 of 4]" in out and not list((tmp_path / "runs").glob("*/lr*"))
    assert (tmp_path / "runs/report.md").read_text().count("all diverged") == 2


def test_only_some_methods(matrix, tmp_path, content):
    content["methods"]["low"] = {"options": {"model.backbone.latent.rank": 0.25}, "rate_of": "dense"}
    assert matrix("--only", "low")[0] == 0
    # the search that it takes its value from, and not that method's own row
    assert {p.name for p in (tmp_path / "runs/dense").iterdir()} == {"search_lr0.01_seed7", "search_lr0.03_seed7"}
    assert {p.name for p in (tmp_path / "runs/low").iterdir()} == {"lr0.01_seed0", "lr0.01_seed1"}
    assert not (tmp_path / "runs/tucker-rank-1-2").exists()
    code, _, err = matrix("--only", "lo")
    assert code == 2 and "did you mean 'low'?" in err


def test_without_a_search_the_config_decides(matrix, content, starts, tmp_path):
    del content["search"]
    content["options"]["model.optimizer.lr"] = 0.01
    assert matrix()[0] == 0
    assert set(starts(tmp_path / "runs/dense")) == {"seed0", "seed1"}
    assert "| lr |" not in (tmp_path / "runs/report.md").read_text()


def test_jobs_run_beside_each_other_on_their_share_of_the_cores(matrix, fake, starts, monkeypatch, tmp_path):
    # none of the first four ends before all of them have begun
    fake(**{"search_lr0.01_seed7": "meet", "search_lr0.03_seed7": "meet"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)), raising=False)
    assert matrix("--jobs", "4")[0] == 0
    folders = [path.parent for path in (tmp_path / "runs").glob("*/*/end")]
    spans = [(starts(f)["."][0]["begin"], float((f / "end").read_text())) for f in folders]
    # at the moment when one begins: over its whole length it may see several come and go
    beside = [sum(a <= begin < b for a, b in spans) for begin, _ in spans]
    assert len(spans) == 8 and max(beside) == 4
    env = starts(tmp_path / "runs")["dense/lr0.01_seed0"][0]["env"]
    assert (env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"]) == ("2", "2")


def test_gpus_go_round(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(machine, "_gpu_name", lambda: "2 × X")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    own = machine.Machine()
    assert own.jobs == 2 and own.record()["gpu"] == "2 × X"
    assert [machine.Machine(jobs=3).env(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0", "1", "0"]
    assert "PL_GLOBAL_SEED" not in own.env(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-ab")
    assert machine.Machine().env(1)["CUDA_VISIBLE_DEVICES"] == "GPU-ab"
    with pytest.raises(ValueError, match="--jobs is 0"):
        machine.Machine(jobs=0)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_children_too_and_the_same_command_goes_on(matrix, fake, starts, tmp_path, number, expected):
    fake(**{"lr0.01_seed0": "hang"})
    hanging = tmp_path / "runs/dense/lr0.01_seed0"

    def send():
        wait_until((hanging / "metrics.jsonl").exists)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    sender = threading.Thread(target=send)
    sender.start()
    code, out, err = matrix()
    sender.join()
    assert signal.getsignal(number) == before
    assert code == expected, err
    assert (hanging / "saved").exists()
    for told in starts(tmp_path / "runs").values():
        with pytest.raises(ProcessLookupError):
            os.kill(told[0]["pid"], 0)
    plan, runs = tmp_path / "plan.yaml", tmp_path / "runs"
    again = f"to go on: bnnlight matrix {plan} --runs {runs}"
    name = signal.Signals(number).name
    assert err.splitlines()[-1] == f"bnnlight matrix: stopped by {name}, 2 runs made; {again}"
    first = json.loads((hanging / "run.json").read_text())["seconds"]
    assert first > 0
    fake()
    code, out, _ = matrix()
    assert code == 0 and "[6 of 6]" in out
    assert len(starts(tmp_path / "runs/dense")["lr0.01_seed0"]) == 2
    assert json.loads((hanging / "run.json").read_text())["seconds"] > first  # of both starts


CONFIG_MISTAKES = {
    "of a method": (("methods", "dense", "options"), {"model.backbone.widht": 1}, ("methods, dense:", "width?")),
    "of all": (("options",), {"trainer.max_epoch": 1}, ("plan.yaml: no option", "max_epochs?")),
    "of the search": (("search", "options"), {"data.batch_sise": 1}, ("plan.yaml: data", "batch_size?")),
    "only the network knows": (
        ("methods", "Tucker, rank ½", "options"), {"model.backbone.latent.rank": -1.0}, ("methods, Tucker, rank ½",)
    ),
    "another metric": (("metric",), "pck", ("val/acc1", "val/pck", "checkpoint.monitor")),
    "another direction": (("direction",), "min", ("checkpoint.mode", "'max'", "'min'")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", CONFIG_MISTAKES)
def test_a_mistake_in_any_config_is_told_before_anything_runs(checked, content, tmp_path, mistake):
    keys, value, parts = CONFIG_MISTAKES[mistake]
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    code, _, err = checked()
    assert code == 2 and len(err.splitlines()) == 1 and err.startswith("bnnlight matrix: error: ")
    for part in parts:
        assert part in err
    assert not list((tmp_path / "runs").glob("*/*"))


def test_missing_data_are_told_before_anything_runs(checked, content, configs, tmp_path):
    content["config"] = str(configs / "resnet_small_cifar10.yaml")
    code, _, err = checked("--", f"--data.root={tmp_path / 'nowhere'}")
    assert code == 2 and len(err.splitlines()) == 1 and "nowhere" in err
    assert not list((tmp_path / "runs").glob("*/*"))


def test_a_terminal_shows_a_bar_with_epochs_and_time_left():
    from rich.console import Console

    from bnnlight.matrix.runs.screen import Screen, duration

    with open(os.devnull, "w") as null:
        console = Console(file=null, force_terminal=True, width=120, record=True)
        with Screen(console) as screen:
            screen.show(3.0, 12.0, "1 of 4", 130.0, ["dense, seed 0: epoch 2 of 6"])
            screen.line("[1 of 4] done [b]")
            screen._bar.refresh()
        text = console.export_text()
    assert "1 of 4" in text and "2 min left" in text and "epoch 2 of 6" in text and "done [b]" in text
    assert [duration(s) for s in (4.4, 125, 3600 + 300)] == ["4 s", "2 min", "1 h 05 min"]
