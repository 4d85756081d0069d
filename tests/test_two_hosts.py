"""Two hosts, as network namespaces: what `benchmarks/reliability/two_hosts.py` finds, in short. Needs root on Linux."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from fixtures.processes import run_to_end

SCRIPT = Path(__file__).parents[1] / "benchmarks/reliability/two_hosts.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    """Results of the parts; skipped, with the reason, where there can be no second host."""
    command = [sys.executable, str(SCRIPT), "--parts", "same", "cut", "--timeout_s", "20", "--json"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = run_to_end(command, env)
    if re.fullmatch(r"two_hosts.py: (needs|may not) .*\n", done.stderr):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["results"]


def test_two_hosts_learn_what_one_process_learns(found):
    assert found["same"]["float64"]["largest"] < 1e-8
    assert found["same"]["float64"]["relative"] < 1e-10


def test_a_host_that_falls_silent_ends_the_job_on_the_other(found):
    line = found["cut"]["error"]
    assert re.fullmatch(
        r"rank 1 on host host-b has not been heard from for \d+ s; .* started again with --run_dir cut --resume", line
    )
    assert found["cut"]["torchrun"] == "waits"


def test_the_run_goes_on_when_the_host_is_back(found):
    cut = found["cut"]
    assert cut["exit"] == [0, 0]
    assert (cut["starts"], cut["wandb_runs"]) == (2, 1)
    assert set(cut["differences"].values()) == {0.0}
