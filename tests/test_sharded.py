"""Sharded and replicated training in two processes on a CPU: the weights are those of one process."""

import json
import sys
from pathlib import Path

import pytest
from fixtures.processes import run_to_end

SCRIPT = Path(__file__).parent / "fixtures/sharded_training.py"
STARTED = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(("which", "number"), [((), 5), pytest.param(("all",), 34, marks=pytest.mark.slow)])
def test_two_processes_end_with_the_weights_of_one(which, number, tmp_path, monkeypatch):
    for name, value in STARTED.items():
        monkeypatch.setenv(name, value)
    done = run_to_end([sys.executable, SCRIPT, tmp_path, *which])
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "apart.json").read_text())
    assert len(found) == number
    for name, row in found.items():
        print(f"{name}: two processes against one after 20 steps: {row['apart']:.1e} of the weights' norm")
        assert row["apart"] < 1e-9, name
        # all parameters, or none
        assert row["sharded"] == (row["parameters"] if name.startswith("FSDP2") else 0)
    assert all(row["parameters"] > 20 for row in found.values())
