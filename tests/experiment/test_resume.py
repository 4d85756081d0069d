"""A run that is stopped and goes on is the run that was never stopped."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CONFIG = Path(__file__).parents[2] / "configs/quickstart.yaml"

_DYING = """
import os
import signal
import lightning as L

class Die(L.Callback):
    def __init__(self, step: int, kill: bool):
        self.step, self.kill = step, kill

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
"""


@pytest.fixture
def fit(tmp_path):
    """Run `bnnlight fit` in a process of its own, with --resume; return its exit status and output."""
    (tmp_path / "dying.py").write_text(_DYING)

    def run(run_dir, die_at=None, kill=True):
        options = ["--resume", f"--run_dir={run_dir}", "--test_after_fit=false", "--trainer.max_epochs=4"]
        options += ["--trainer.enable_progress_bar=false", "--flip_rates.interval=7", "--trainer.log_every_n_steps=5"]
        options.append("--model.init_args.backbone.init_args.width=0.125")
        if die_at:
            dying = {"class_path": "dying.Die", "init_args": {"step": die_at, "kill": kill}}
            options.append(f"--trainer.callbacks={json.dumps([dying])}")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "BNNLIGHT_"))}
        path = os.pathsep.join([str(tmp_path), *sys.path])
        done = subprocess.run(
            [sys.executable, "-m", "bnnlight", "fit", f"--config={CONFIG}", *options],
            env={**env, "WANDB_MODE": "offline", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def weights(run_dir):
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def test_a_run_stopped_twice_equals_the_unbroken_one(tmp_path, fit, bnnlight):
    code, out = fit(tmp_path / "whole")
    assert code == 0, out
    broken = tmp_path / "broken"
    # 19 steps an epoch: both stops in the middle of one, so that steps are trained twice
    assert fit(broken, die_at=26)[0] == -9
    code, out = fit(broken, die_at=50, kill=False)
    assert code != 0 or "interrupted" in out, out
    code, out = fit(broken)
    assert code == 0, out
    assert out.count("wandb beta sync") == 1 and len(list(broken.glob("wandb/offline-run-*"))) == 3

    for source in ("", "wandb"):  # our own file, and W&B's
        code, out, err = bnnlight("compare", "--json", tmp_path / "whole" / source, broken / source)
        assert code == 0, err
        runs = json.loads(out)["runs"]
        one, three = ({k: v for k, v in run["series"].items() if not k.startswith(("time/", "mem/"))} for run in runs)
        assert one == three
        assert [r["starts"] for r in runs] == [1, 3]
        assert one["bnn/flip_rate_mean"]["steps"] == list(range(7, 76, 7))
        assert len(one["val/acc1"]["steps"]) == 4
    one, three = weights(tmp_path / "whole"), weights(broken)
    assert all(torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--resume"], "--resume needs the run's directory: pass --run_dir DIR"),
        (
            ["--run_dir=RUN"],
            "RUN already holds a run: resume it with --resume, choose another --run_dir, or leave it out",
        ),
    ],
    ids=["none named", "taken"],
)
def test_a_directory_that_will_not_do_is_one_line(bnnlight, tmp_path, caplog, options, line):
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN/config.yaml").touch()
    # Lightning talks, as it does in a new process: a verb that ran before in this one may have silenced it
    with caplog.at_level(logging.INFO, "lightning.fabric"):
        code, _, err = bnnlight("fit", "--config", CONFIG, *options)
    assert (code, err) == (2, f"bnnlight fit: error: {line}\n")
    assert caplog.records == []
