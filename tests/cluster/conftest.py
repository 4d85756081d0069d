"""The jobs of cluster/, run for real on digits: two processes, no GPU."""

import contextlib
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from fixtures.processes import Started, ended_together, run_to_end

ROOT = Path(__file__).parents[2]

DIGITS = (
    *(f"--config={ROOT}/configs/quickstart.yaml", "--trainer.accelerator=cpu", "--num_threads=1"),
    *("--trainer.max_epochs=1", "--data.batch_size=300", "--model.backbone.width=0.0625", "--trainer.logger=false"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--test_after_fit=false"),
)
"""An epoch of 1,257 pictures, the rest that fills no batch left out: four steps in one process, two in two of them."""


@pytest.fixture
def cluster():
    return ROOT / "cluster"


@pytest.fixture
def env(tmp_path):
    """Variables of a new user in whose PATH our programs are; nothing of another run, of torchrun or of Slurm."""
    foreign = ("WANDB", "BNNLIGHT", "PL_", "SLURM", "TORCHELASTIC", "PET_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}


@pytest.fixture
def program(tmp_path):
    """Write an executable that stands first in the PATH of `env`."""

    def write(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def run(env, tmp_path):
    """Run a command in an empty folder; return what came of it."""

    def call(*command, **variables):
        variables = env | {name: str(value) for name, value in variables.items()}
        return run_to_end(command, variables, tmp_path)

    return call


@pytest.fixture
def machines(env, tmp_path):
    """Run a command on several machines that meet, all of them this one; return exit codes and what each one said.

    Args:
        command: what each of them runs.
        variables: those of each machine, the one at which they meet first.
    """

    def call(command, variables):
        started = []
        with contextlib.ExitStack() as at_end:
            for number, own in enumerate(variables):
                # By its address each one takes itself for the place to meet. Where two begin to listen at the same
                # moment, Linux refuses both.
                patient = ",read_timeout=1800,join_timeout=1800,keep_alive_max_attempt=360"
                host = {"PET_RDZV_CONF": f"is_host={int(number == 0)}{patient}"}
                started.append(Started(command, env | host | own, tmp_path))
                at_end.callback(started[-1].close)
            return ended_together(started), "\n".join(map(str, started))

    return call


@pytest.fixture
def on_digits():
    """Replace the config, data and run directory that a job's example names by an epoch of digits in DIR."""

    def replaced(words, run_dir):
        # `--name value` and `--name=value` alike
        words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
        found = {}
        for option in ("--config", "--data.root", "--run_dir"):
            if option in words:
                at = words.index(option)
                found[option] = words[at + 1]
                del words[at : at + 2]
        # really there, under the place that it has in the image or in a checkout
        config = found["--config"].removeprefix("/opt/bnnlight/")
        assert (ROOT / config).is_file(), config
        run_dir = {"--run_dir": str(run_dir)} if "--run_dir" in found else {}
        return words, [*DIGITS, *(f"{option}={value}" for option, value in run_dir.items())], found

    return replaced


@pytest.fixture
def steps():
    """Optimizer steps in a run's last checkpoint."""

    def count(run_dir):
        return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]

    return count


@pytest.fixture
def opening():
    """The comment that a file opens with, without its marks."""

    def read(path):
        lines = path.read_text().splitlines()
        lines = lines[1:] if lines[0].startswith("#!") else lines
        comment = []
        for line in lines:
            if not line.startswith("#") or line.startswith("#SBATCH"):
                break
            comment.append(line.removeprefix("#").removeprefix(" "))
        return "\n".join(comment)

    return read


@pytest.fixture
def example(opening):
    """The words behind NAME in the first line of a file's opening comment that starts with COMMAND."""

    def find(path, command):
        line = re.search(rf"^  {re.escape(command)}( .*?)(?:  .*)?$", opening(path), re.MULTILINE)
        assert line, f"{path.name} has no line `{command} …`"
        return shlex.split(line[1])

    return find
