"""The acceptance on a GPU, without one: a part that fails or hangs does not stop the others, and the page says so."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures.processes import is_running, run_to_end, wait_until

from bnnlight.data import MPIIDataModule

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Makes the scripts importable, which import each other by their names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/gpu"))


def writes(figures):
    """The command of a part that writes its record."""
    text = json.dumps({"figures": figures, "checks": []})
    return lambda place, output, limit_s: [sys.executable, "-c", f"open({str(output)!r}, 'w').write({text!r})"]


def python(code):
    return lambda place, output, limit_s: [sys.executable, "-c", code]


def test_a_broken_part_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    import acceptance
    from acceptance_parts import Part

    def unreadable(place, record):
        raise KeyError("results")

    parts = (
        Part("raises", "a part that raises", 10, python("print('here it says why'); 1 / 0")),
        Part("missing", "a command that is not there", 10, lambda *_: [str(tmp_path / "none")]),
        Part("unread", "one whose record is of another kind", 10, writes({}), unreadable),
        Part("works", "a part that works", 10, writes({"a figure": 1.25, "a row": {"ms": 3.0}})),
    )
    monkeypatch.setattr(acceptance, "PARTS", parts)
    output = tmp_path / "page/gpu"
    monkeypatch.setattr(sys, "argv", ["acceptance.py", "--device", "cpu", "--small", "--output", str(output)])
    assert acceptance.main() == 1
    record = json.loads(output.with_suffix(".json").read_text())
    failed = {name: part.get("failed") for name, part in record["parts"].items()}
    assert failed["raises"] == "exit code 1" and failed["works"] is None
    assert failed["missing"].startswith("cannot be started") and "cannot be read" in failed["unread"]
    assert "here it says why" in output.with_suffix(".log").read_text()
    page = output.with_suffix(".md").read_text()
    assert "| raises | a part that raises | " in page and "exit code 1" in page
    assert "- a figure: 1.25" in page and "| a row | 3 |" in page


def test_what_hangs_is_ended_with_its_children(tmp_path):
    from acceptance_watched import run_watched

    told = tmp_path / "pid"
    # a child that does not listen
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    parent = (
        "import pathlib, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"pathlib.Path({str(told)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    with (tmp_path / "log").open("wb") as log:
        for limit_s in (3, 30, 300):  # until it has come as far as to have a child
            why = run_watched([sys.executable, "-c", parent], limit_s, log, dict(os.environ), tmp_path)
            if told.exists():
                break
    assert why == f"not done after {limit_s} s"
    wait_until(lambda: not is_running(int(told.read_text())), "the child's end")


def test_checks_that_miss_are_a_failure():
    from acceptance import holds
    from acceptance_page import page

    part = {
        "title": "t",
        "seconds": 1.0,
        "figures": {},
        "checks": [{"name": "n", "asked": "< 1", "found": 2, "ok": False}],
    }
    assert not holds({"one": part}) and holds({"one": {**part, "checks": []}})
    record = {"device": "d", "machine": "m", "torch": "2", "cuda": None, "commit": "c", "small": False}
    text = page({**record, "parts": {"one": part}})
    assert "| n | < 1 | 2 | **missed** |" in text and "1 of its checks missed" in text


def test_drawn_people_are_read_as_mpii(tmp_path):
    from shared_people import draw_mpii

    from bnnlight.data.keypoints.people import draw_person

    data = MPIIDataModule(str(draw_mpii(tmp_path / "mpii", 4, 3)), image_size=64, boxes="raw", num_workers=0)
    data.prepare_data()
    data.setup("fit")
    assert len(data.train_set) == 4 and len(data.val_set) == 3
    entry = json.loads((tmp_path / "mpii/annot/valid.json").read_text())[1]
    person = draw_person(0, 1, "val").person
    np.testing.assert_allclose(np.array(entry["joints"]) - 1, person.joints, atol=0.01)
    assert 200 * 1.25 * entry["scale"] == pytest.approx(float(person.side_px))


NOT_THERE = (
    "openvino",
    "onnxruntime",
    "tflite",
    "plotly",
    "pycocotools",
    "pytorch_optimizer",
    "wandb_workspaces",
    "ruff",
)
"""What a machine with torch and what `carry.sh` lays beside it lacks."""


def without(names, *code):
    """Runs Python where some packages are not to be found, as if they were not installed."""
    hidden = f"""
import sys
class Hidden:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in {names!r} else self.finder.find_spec(name, *rest)
sys.meta_path[:] = map(Hidden, sys.meta_path)
"""
    return run_to_end([sys.executable, "-c", "\n".join([hidden, *code])], cwd=ROOT)


def test_all_parts_start_without_packages_that_only_other_things_need():
    scripts = sorted(path.stem for path in (ROOT / "benchmarks/gpu").glob("acceptance*.py"))
    assert len(scripts) > 5
    folders = [str(ROOT / "benchmarks" / name) for name in ("gpu", "training")]
    done = without(NOT_THERE, f"sys.path[:0] = {folders!r}", f"import gpu_train, {', '.join(scripts)}", "print('all')")
    assert done.stdout == "all\n", done.stderr


def test_the_tests_on_a_gpu_are_found_without_these_packages():
    words = ["-q", "-p", "no:cacheprovider", "-m", "gpu", "--collect-only", "tests/gpu"]
    done = without(NOT_THERE, "import pytest", f"sys.exit(pytest.main({words!r}))")
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.count("::") > 40


def test_what_failed_is_told_before_what_it_did_not_write(monkeypatch, tmp_path):
    import acceptance
    from acceptance_parts import Part, Place

    def unreadable(place, record):
        raise KeyError("results")

    part = Part("train", "time", 60, python("import sys; sys.exit(3)"), unreadable)
    record = acceptance.run_part(part, Place(tmp_path, "cpu", small=True, data=None), 60, tmp_path / "log")
    assert "3" in record["failed"]
    assert "cannot be read" not in record["failed"]
