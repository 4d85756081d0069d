"""`bnnlight fit` on two hosts: starting it, waiting for it, comparing its weights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from two_hosts_network import Network

ROOT = Path(__file__).parents[2]
SLOW = """
import time
import lightning as L

class Slow(L.Callback):
    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_train_batch_end(self, *args):
        time.sleep(self.seconds)
"""
COMMON = (
    *("--config", str(ROOT / "configs/quickstart.yaml"), "--trainer.accelerator=cpu", "--num_threads=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--test_after_fit=false"),
    *("--trainer.sync_batchnorm=true", "--model.backbone.width=0.125"),
)
WAIT_S = 300
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Bench:
    """Runs of `bnnlight fit` on the two hosts of a network, in a folder of their own."""

    def __init__(self, network: Network, folder: Path, timeout_s: float) -> None:
        self.network, self.folder, self.timeout_s = network, folder, timeout_s
        self._count = 0
        (folder / "slow.py").write_text(SLOW)

    def start(self, host: str, command: list[str]) -> tuple[subprocess.Popen, Path]:
        """A command on a host, with the file that its output goes into."""
        self._count += 1
        log = self.folder / f"{self._count}-{host}.log"
        env = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "BNNLIGHT", "PL_"))}
        env |= {"HOME": str(self.folder), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
        # else torchrun's agent that stays keeps the address of the first round to itself, and the new one waits in vain
        env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(self.folder)])
        return self.network.start(host, [sys.executable, *command], log, cwd=self.folder, env=env), log

    def torchrun(self, host: str, run_dir: str, *options: str, rendezvous: str = "host-a"):
        """One host's part of a run on both."""
        elastic = ("--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=two-hosts")
        elastic += (f"--rdzv-endpoint={rendezvous}:29400", "-m", "bnnlight", "fit", *COMMON, "--trainer.num_nodes=2")
        options = ("--data.batch_size=32", f"--run_dir={run_dir}", "--resume", *options)
        beats = f"--heartbeat.timeout_s={self.timeout_s}"
        return self.start(host, ["-m", "torch.distributed.run", *elastic, beats, *options])

    def on_both(self, run_dir: str, *options: str) -> None:
        """A whole run on both hosts."""
        jobs = [self.torchrun(host, run_dir, *options) for host in self.network.hosts]
        for job, log in jobs:
            finish(job, log)

    def on_one(self, run_dir: str, *options: str) -> None:
        """The same run in one process, which gets the batches of both."""
        command = ["-m", "bnnlight", "fit", *COMMON, "--data.batch_size=64", f"--run_dir={run_dir}", *options]
        finish(*self.start("host-a", command))

    def weights(self, run_dir: str) -> dict[str, torch.Tensor]:
        return torch.load(self.folder / run_dir / "checkpoints/last.ckpt", weights_only=True)["state_dict"]

    def differences(self, one: str, other: str) -> dict[str, float]:
        """Of two runs: the largest difference of a trained number, alone and over the largest of its tensor.

        Biases in front of a batch norm have no gradient but rounding, and so no digit in common: relative
        differences leave out tensors without a number above 1e-6. Running statistics of batch norms are apart.
        """
        first, second = self.weights(one), self.weights(other)
        assert list(first) == list(second)
        largest = {name: float((first[name].double() - second[name].double()).abs().max()) for name in first}
        sizes = {name: float(first[name].abs().max()) for name in first}
        trained = [name for name in first if name.rsplit(".", 1)[1] not in _STATISTICS]
        return {
            "largest": max(largest[name] for name in trained),
            "relative": max(largest[name] / sizes[name] for name in trained if sizes[name] > 1e-6),
            "statistics": max(largest[name] for name in first if name not in trained),
        }

    def wait_for_step(self, run_dir: str, step: int) -> None:
        """Waits until a run has logged a step."""
        file = self.folder / run_dir / "metrics.jsonl"
        wait_until(lambda: any(s >= step for s in logged_steps(file)), f"{run_dir} did not come to step {step}")


def logged_steps(file: Path) -> list[int]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [int(found[1]) for line in lines if (found := re.search(r'"step": (\d+)', line))]


def wait_until(ready, problem: str, limit_s: float = WAIT_S) -> float:
    """Seconds until ``ready()``; TimeoutError with the problem after ``limit_s``."""
    start = time.monotonic()
    while not ready():
        if time.monotonic() - start > limit_s:
            raise TimeoutError(f"{problem} within {limit_s:g} s")
        time.sleep(0.05)
    return time.monotonic() - start


def finish(job: subprocess.Popen, log: Path) -> None:
    code = job.wait(WAIT_S)
    if code:
        raise RuntimeError(f"exit status {code} of {log.name}:\n{log.read_text()[-3000:]}")


def error_lines(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("bnnlight fit: error: ")]
