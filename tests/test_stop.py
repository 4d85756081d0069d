"""Runs in processes of their own that are told to stop, by schedulers' signals and by Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

OPTIONS = (
    *("--model.backbone.width=0.0625", "--trainer.max_epochs=3", "--trainer.limit_train_batches=12", "--resume"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"),
    *("--trainer.logger=bnnlight.tracking.MetricsFile", "--trainer.log_every_n_steps=1", "--pictures.count=0"),
    *("--test_after_fit=false", "--num_threads=1", "--data.num_workers=1"),
)

SLOW = """
import time
import lightning as L


class Slow(L.Callback):
    def on_train_batch_end(self, *args):
        time.sleep(0.2)
"""
"""So that there is time to send a signal to a short run."""


@pytest.fixture
def fit(tmp_path, configs):
    """Start the real command in a session of its own; return the process."""
    (tmp_path / "slow.py").write_text(SLOW)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT", "PL_"))}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    started = []

    def start(run_dir, *options, slow=False):
        command = [sys.executable, "-m", "bnnlight", "fit", "--config", str(configs / "quickstart.yaml"), *OPTIONS]
        command += [f"--run_dir={run_dir}", *options, *(["--trainer.callbacks=[slow.Slow]"] if slow else [])]
        started.append(
            subprocess.Popen(
                command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                start_new_session=True,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_steps(run_dir, process, num_lines=6):
    """Until some steps were logged, which is after the first and before the last."""
    path, end = run_dir / "metrics.jsonl", time.monotonic() + 120
    while not path.exists() or len(path.read_text().splitlines()) < num_lines:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def children(pid):
    """Processes that a process started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(process):
    _, err = process.communicate(timeout=120)
    return process.returncode, [line for line in err.splitlines() if line.startswith("bnnlight")]


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)


def test_ctrl_c_reaches_the_loaders_too_and_ends_the_run_after_its_step(tmp_path, fit):
    process = fit(tmp_path / "run", slow=True)
    wait_for_steps(tmp_path / "run", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    code, lines = ended(process)
    saved = checkpoint(tmp_path / "run")["global_step"]
    assert code == 130 and 0 < saved < 36
    config = tmp_path / "run/config.yaml"
    command = f"bnnlight fit --config {config} --run_dir {tmp_path / 'run'} --resume"
    assert lines == [f"bnnlight fit: stopped by SIGINT, saved at step {saved}; to go on: {command}"]


def test_ctrl_c_twice_ends_it_at_once(tmp_path, fit):
    process = fit(tmp_path / "run", slow=True)
    wait_for_steps(tmp_path / "run", process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, lines = ended(process)
    assert code == 130
    assert lines[0].startswith("bnnlight fit: stopped by SIGINT, what was saved before is kept; to go on: ")
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")
def test_one_of_two_processes_is_told_and_both_stop_after_the_same_step(tmp_path, fit):
    two = ("--trainer.devices=2", "--data.batch_size=32", "--last_checkpoint.minutes=null")
    whole = fit(tmp_path / "whole", *two)
    assert ended(whole)[0] == 0
    process = fit(tmp_path / "run", *two, slow=True)
    wait_for_steps(tmp_path / "run", process)
    other = next(pid for pid in children(process.pid) if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(other, signal.SIGTERM)
    code, lines = ended(process)
    saved = checkpoint(tmp_path / "run")
    assert code == 75 and 0 < saved["global_step"] < 36, lines
    assert lines[0].startswith(f"bnnlight fit: stopped by another process, saved at step {saved['global_step']}; ")
    assert len(saved["processes"]) == 2
    assert ended(fit(tmp_path / "run", *two))[0] == 0
    one, other = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "run")
    assert one["global_step"] == other["global_step"] == 36
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
