"""The benchmark of training on a GPU, without one: its figures, its limits, and what is left when it is stopped."""

import json
import sys
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks/training"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Makes the scripts importable, which import each other by their names."""
    monkeypatch.syspath_prepend(str(FOLDER))


def test_gpu_train_on_a_cpu(tmp_path, monkeypatch, capsys):
    import gpu_train

    rows = ["real, channels last", "dense", "dense, lean"]
    argv = ["gpu_train.py", "--device", "cpu", "--small", "--settings", "1", "--modes", "plain", "--rows", *rows]
    monkeypatch.setattr(sys, "argv", [*argv, "--output", str(tmp_path / "gpu_train")])
    seconds = [[0.5, 0.5], [1.0, 1.5], [2.0, 4.0]]
    monkeypatch.setattr(gpu_train, "take_turns", lambda steps, rounds: dict(zip(steps, seconds, strict=True)))
    gpu_train.main()
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert list(result["rows"]) == [f"{row}, plain" for row in rows]
    real, dense, lean = result["rows"].values()
    assert (real["ratio"], dense["ratio"], lean["ratio"]) == (1, 2.5, 6)
    assert lean["saved_ratio"] < dense["saved_ratio"] < real["saved_ratio"] == 1
    assert real["pictures_per_s"] == 2 / 0.5
    assert lean["peak_bytes"] is None
    page = (tmp_path / "gpu_train.md").read_text()
    assert all(f"| {row}, plain | " in page for row in rows)


def test_gpu_train_names_the_row_that_fails(monkeypatch):
    import gpu_train

    def refuse(network):
        raise RuntimeError("no compiler\nand a long trace")

    monkeypatch.setitem(gpu_train.MODES, "compiled", refuse)
    (row,) = gpu_train.measure(gpu_train.SMALL[1], ["real, channels last"], "compiled", "cpu").values()
    assert row.pop("warm_up_s") > 0
    assert row == {"mode": "compiled", "error": "RuntimeError: no compiler"}


def test_gpu_train_keeps_what_it_has_when_time_is_out(tmp_path, monkeypatch, capsys):
    """The clock stands still but for the compiler, which takes 70 of 100 seconds, and dies at the second network."""
    import gpu_train

    now, written = [0.0], []

    def slow(network):
        now[0] += 70
        if now[0] > 100:
            written.append(json.loads((tmp_path / "gpu_train.json").read_text())["results"])
            raise KeyboardInterrupt  # as the watchdog would
        return network

    monkeypatch.setattr(
        gpu_train, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=partial(next, count()))
    )
    monkeypatch.setitem(gpu_train.MODES, "compiled", slow)
    words = ["--device", "cpu", "--small", "--limit_s", "100", "--rows", "real, channels last", "dense"]
    monkeypatch.setattr(sys, "argv", ["gpu_train.py", *words, "--output", str(tmp_path / "gpu_train")])
    with pytest.raises(KeyboardInterrupt):
        gpu_train.main()
    ((resnet, hourglass),) = written
    left_out = {"mode": "compiled", "error": "left out: no time was left"}
    assert resnet["rows"]["dense, compiled"] == left_out
    assert resnet["rows"]["real, channels last, compiled"]["ratio"] == 1
    assert {name for name, row in hourglass["rows"].items() if "ratio" in row} == {
        "real, channels last, plain",
        "dense, plain",
    }


def test_gpu_train_without_a_gpu(monkeypatch):
    import gpu_train

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_train.py"])
    with pytest.raises(SystemExit, match=r"^gpu_train\.py: torch sees no GPU: .*--device cpu --small$"):
        gpu_train.main()
