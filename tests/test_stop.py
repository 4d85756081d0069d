"""Runs in processes of their own that are told to stop, by schedulers' signals and by Ctrl-C."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from fixtures.processes import Started
from fixtures.stopping import wait_for_signal_option, waiting

OPTIONS = (
    *("--model.backbone.width=0.0625", "--trainer.max_epochs=3", "--trainer.limit_train_batches=12", "--resume"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"),
    *("--trainer.logger=bnnlight.tracking.MetricsFile", "--trainer.log_every_n_steps=1", "--pictures.count=0"),
    *("--test_after_fit=false", "--num_threads=1", "--data.num_workers=1"),
)


@pytest.fixture
def fit(tmp_path, configs):
    """Start the real command in a session of its own; return the process."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT", "PL_"))}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    started = []

    def start(run_dir, *options):
        command = [sys.executable, "-m", "bnnlight", "fit", "--config", configs / "quickstart.yaml", *OPTIONS]
        started.append(Started([*command, f"--run_dir={run_dir}", *options], env=env, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.close()


def children(pid):
    """Processes that a process started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(process):
    code = process.ended()
    return code, [line for line in process.err.splitlines() if line.startswith("bnnlight")]


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)


def test_ctrl_c_reaches_the_loaders_too_and_ends_the_run_after_its_step(tmp_path, fit):
    run_dir = tmp_path / "run"
    process = fit(run_dir, wait_for_signal_option(6))
    process.wait_until(waiting(run_dir, 6).exists)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    code, lines = ended(process)
    saved = checkpoint(run_dir)["global_step"]
    assert code == 130 and saved in (6, 7)
    command = f"bnnlight fit --config {run_dir / 'config.yaml'} --run_dir {run_dir} --resume"
    assert lines == [f"bnnlight fit: stopped by SIGINT, saved at step {saved}; to go on: {command}"]


def test_ctrl_c_twice_ends_it_at_once(tmp_path, fit):
    run_dir = tmp_path / "run"
    # in a step that has no end
    process = fit(run_dir, wait_for_signal_option(6, for_ever=True))
    process.wait_until(waiting(run_dir, 6).exists)
    os.kill(process.pid, signal.SIGINT)
    process.wait_until(lambda: "Ctrl-C again to stop at once\n" in process.err)
    os.kill(process.pid, signal.SIGINT)
    code, lines = ended(process)
    assert code == 130
    assert lines[0].startswith("bnnlight fit: stopped by SIGINT, what was saved before is kept; to go on: ")
    assert not (run_dir / "checkpoints").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")
def test_one_of_two_processes_is_told_and_both_stop_after_the_same_step(tmp_path, fit):
    two = ("--trainer.devices=2", "--data.batch_size=32", "--last_checkpoint.minutes=null")
    two += ("--trainer.max_epochs=2", "--data.num_workers=0")
    assert ended(fit(tmp_path / "whole", *two))[0] == 0
    run_dir = tmp_path / "run"
    process = fit(run_dir, *two, wait_for_signal_option(6, rank=1))
    process.wait_until(waiting(run_dir, 6).exists)
    other = next(pid for pid in children(process.pid) if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(other, signal.SIGTERM)
    code, lines = ended(process)
    saved = checkpoint(run_dir)
    assert code == 75 and saved["global_step"] in (6, 7), lines
    assert lines[0].startswith(f"bnnlight fit: stopped by another process, saved at step {saved['global_step']}; ")
    assert len(saved["processes"]) == 2
    assert ended(fit(run_dir, *two))[0] == 0
    one, other = checkpoint(tmp_path / "whole"), checkpoint(run_dir)
    assert one["global_step"] == other["global_step"] == 24
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
