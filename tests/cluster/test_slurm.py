"""The batch scripts under a stub of Slurm: srun starts tasks with Slurm's variables, scontrol notes what it is told."""

import pytest
from fixtures.free_port import free_port

SRUN = """#!/usr/bin/env python3
import os, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("-"):
    command.pop(0)
number, tasks = int(os.environ["SLURM_NNODES"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
started = []
for rank in range(number * tasks):
    place = {"PROCID": rank, "NODEID": rank // tasks, "LOCALID": rank % tasks, "NTASKS": number * tasks}
    env = os.environ | {f"SLURM_{name}": str(value) for name, value in place.items()}
    started.append(subprocess.Popen(command, env=env))
sys.exit(max(process.wait() for process in started))
"""

SCONTROL = """#!/bin/bash
echo "$@" >> "$HOME/scontrol"
"""

ECHO = """#!/bin/bash
printf "%s\\n" "$@" > "$HOME/words"
exit "$CODE"
"""


@pytest.fixture
def slurm(run, program, cluster, tmp_path):
    """Run a batch script as a job of NODES × TASKS; return what came of it and what scontrol was told."""
    program("srun", SRUN)
    program("scontrol", SCONTROL)

    def submit(name, *args, nodes=1, tasks=1, **variables):
        job = {"JOB_ID": "7", "JOB_NAME": "bnnlight", "NODELIST": "localhost"}
        job |= {"NNODES": nodes, "NTASKS_PER_NODE": tasks}
        variables |= {f"SLURM_{key}": value for key, value in job.items()}
        done = run("bash", cluster / name, *args, MASTER_PORT=free_port(), **variables)
        told = tmp_path / "scontrol"
        return done, told.read_text().splitlines() if told.exists() else []

    return submit


def test_its_example_trains_as_one_run_of_all_tasks(slurm, cluster, example, on_digits, steps, tmp_path):
    _, digits, found = on_digits(example(cluster / "slurm.sbatch", "sbatch cluster/slurm.sbatch"), tmp_path / "a")
    assert set(found) == {"--config", "--data.root", "--run_dir"}
    done, told = slurm("slurm.sbatch", *digits, nodes=2, tasks=1)
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path / "a") == 2
    assert told == []


def test_a_run_of_the_sweep_trains_in_a_directory_of_its_own(slurm, cluster, example, on_digits, steps, tmp_path):
    words = example(cluster / "slurm_sweep.sbatch", "sbatch cluster/slurm_sweep.sbatch")
    assert words[0] == "/shared/RUNS/ranks"
    _, digits, found = on_digits(words[1:], tmp_path / "a")
    assert set(found) == {"--config", "--data.root"}
    array = {"SLURM_ARRAY_JOB_ID": 7, "SLURM_ARRAY_TASK_ID": 1}
    done, _ = slurm("slurm_sweep.sbatch", tmp_path / "ranks", *digits, **array)
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path / "ranks/0.5") == 4
    assert "rank: 0.5" in (tmp_path / "ranks/0.5/config.yaml").read_text()


@pytest.mark.parametrize("code", [0, 1, 2, 75, 130, 137])
@pytest.mark.parametrize(
    ("script", "variables", "job"),
    [
        ("slurm.sbatch", {}, "7"),
        # the last run of an array has the array's own number
        ("slurm_sweep.sbatch", {"SLURM_ARRAY_JOB_ID": 7, "SLURM_ARRAY_TASK_ID": 3}, "7_3"),
    ],
)
def test_75_is_requeued_and_nothing_else(slurm, program, script, variables, job, code):
    program("bnnlight", ECHO)
    done, told = slurm(script, "RUNS", CODE=code, **variables)
    assert done.returncode == code
    assert told == ([f"requeue {job}"] if code == 75 else [])


def test_the_sizes_of_the_job_are_those_of_the_run(slurm, program, tmp_path):
    program("bnnlight", ECHO)
    slurm("slurm.sbatch", "--config", "C", "--run_dir", "D", nodes=3, tasks=4, CODE=0)
    expected = ["fit", "--config", "C", "--run_dir", "D", "--resume", "--trainer.devices", "4"]
    assert (tmp_path / "words").read_text().splitlines() == [*expected, "--trainer.num_nodes", "3"]


def test_the_array_has_a_run_for_each_value(slurm, program, cluster, tmp_path):
    program("bnnlight", ECHO)
    text = (cluster / "slurm_sweep.sbatch").read_text()
    first, last = next(line for line in text.splitlines() if "--array=" in line).split("=")[1].split("-")
    seen = []
    for number in range(int(first), int(last) + 1):
        array = {"SLURM_ARRAY_JOB_ID": 7, "SLURM_ARRAY_TASK_ID": number}
        slurm("slurm_sweep.sbatch", "RUNS/ranks", "--config", "C", CODE=0, **array)
        words = (tmp_path / "words").read_text().splitlines()
        assert words[:4] == ["fit", "--config", "C", "--model.backbone.latent.rank"]
        assert words[5:8] == ["--run_dir", f"RUNS/ranks/{words[4]}", "--resume"]
        seen.append(words[4])
    assert len(set(seen)) == len(seen) > 1
    array["SLURM_ARRAY_TASK_ID"] = number + 1
    done, told = slurm("slurm_sweep.sbatch", "RUNS", CODE=0, **array)
    assert (done.returncode, told) == (2, [])
    assert f"--array=0-{number} is all of them" in done.stderr


@pytest.mark.parametrize("script", ["slurm.sbatch", "slurm_sweep.sbatch"])
def test_they_ask_slurm_for_what_their_lines_rely_on(cluster, script):
    lines = (cluster / script).read_text().splitlines()
    asked = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    # the signal goes to the tasks, not to the shell (B:)
    assert asked["signal"] == "USR1@120"
    assert asked["open-mode"] == "append"
    assert "requeue" in asked
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert ("%A_%a" if "array" in asked else "%j") in asked["output"]
    # Slurm stops reading at the first command
    assert max(i for i, line in enumerate(lines) if line.startswith("#SBATCH")) < lines.index("set -uo pipefail")
