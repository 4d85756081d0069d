"""Training on two hosts, as network namespaces on this machine, and what happens when one of them dies. Needs root.

python benchmarks/two_hosts.py [--parts same killed …] [--json] [--output results/two_hosts]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from two_hosts_network import Network
from two_hosts_report import report

from bnnlight.commands.bench import machine
from bnnlight.commands.save_config import provenance

ROOT = Path(__file__).parents[1]
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
DOUBLE = ("--trainer.precision=64-true",)
SGD = ('--model.optimizer={"class_path":"torch.optim.SGD","init_args":{"lr":0.05,"momentum":0.9}}',)
FEW_STEPS = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=10")
LONG = ("--trainer.max_epochs=3", '--trainer.callbacks=[{"class_path":"slow.Slow","init_args":{"seconds":0.25}}]')
KILL_AT = 30
"""Step at which a host dies: in the middle of the second epoch of 22 or 23 steps."""
WAIT_S = 240


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
        """Of the weights of two runs: the largest difference, alone and over the largest weight of its tensor."""
        first, second = self.weights(one), self.weights(other)
        assert list(first) == list(second)
        pairs = [(first[name].double(), second[name].double()) for name in first]
        apart = sum(float((a - b).square().sum()) for a, b in pairs) / sum(float(a.square().sum()) for a, _ in pairs)
        return {
            "largest": max(float((a - b).abs().max()) for a, b in pairs),
            "relative": max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in pairs),
            "of_norm": apart**0.5,
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


def same(bench: Bench, name: str, *options: str) -> dict[str, Any]:
    """Twenty steps on both hosts beside the same in one process."""
    bench.on_one(f"one-{name}", *FEW_STEPS, *options)
    bench.on_both(f"two-{name}", *FEW_STEPS, *options)
    return bench.differences(f"one-{name}", f"two-{name}")


def unbroken(bench: Bench) -> None:
    """The run that broken ones are compared with."""
    if not (bench.folder / "unbroken").exists():
        bench.on_both("unbroken", *LONG)


def dies(bench: Bench, way: str, rendezvous: str) -> tuple[dict[str, Any], Any, Any, float]:
    """Host B dies in the middle of a run; what is told on A, the two jobs, and when it was."""
    unbroken(bench)
    network = bench.network
    job, log = bench.torchrun("host-a", way, *LONG, rendezvous=rendezvous)
    other, _ = bench.torchrun("host-b", way, *LONG, rendezvous=rendezvous)
    bench.wait_for_step(way, KILL_AT)
    before = set(network.pids("host-a")) - {job.pid}
    start = time.monotonic()
    if way == "worker":
        network.kill("host-b", only="bnnlight")
    elif way == "killed":
        network.kill("host-b")
    else:
        network.cut("host-b")
    wait_until(lambda: error_lines(log) or job.poll() is not None, f"host A said nothing after {way}")
    found = {"seconds": round(time.monotonic() - start, 1)}
    # those of the job: torchrun stays, or not
    wait_until(lambda: not before & set(network.pids("host-a")), "processes of the job stayed")
    found["gone_after"] = round(time.monotonic() - start, 1)
    found["error"] = (error_lines(log) or [""])[0].removeprefix("bnnlight fit: error: ")
    return found, (job, log), other, start


def broken(bench: Bench, way: str) -> dict[str, Any]:
    """Host B dies and comes back, while torchrun on A waits; the rendezvous is on A."""
    found, (job, _), other, _ = dies(bench, way, "host-a")
    if way != "worker":
        comes_back(bench, other)
        found["waits"] = job.poll() is None
        other, _ = bench.torchrun("host-b", way, *LONG)
    else:
        found["waits"] = job.poll() is None
    found["exit"] = [job.wait(WAIT_S), other.wait(WAIT_S)]
    return found | resumed(bench, way)


def rendezvous_lost(bench: Bench) -> dict[str, Any]:
    """Host B dies, and the rendezvous is on B: torchrun on A ends too, and both are started again."""
    way = "rendezvous"
    found, (job, log), other, start = dies(bench, way, "host-b")
    found |= {"exit_a": job.wait(WAIT_S), "ends_after": round(time.monotonic() - start, 1), "waits": False}
    last = [line for line in log.read_text().splitlines() if re.match(r"torch\S*Error", line)]
    found["torchrun"] = last[-1].strip() if last else ""
    comes_back(bench, other)
    jobs = [bench.torchrun(host, way, *LONG, rendezvous="host-b") for host in bench.network.hosts]
    found["exit"] = [again.wait(WAIT_S) for again, _ in jobs]
    return found | resumed(bench, way)


def comes_back(bench: Bench, other: subprocess.Popen) -> None:
    """Host B is on the network again, with nothing running."""
    bench.network.kill("host-b")
    other.wait()
    bench.network.mend("host-b")
    time.sleep(3)


def resumed(bench: Bench, way: str) -> dict[str, Any]:
    """How a run that went on compares with the unbroken one."""
    starts = list((bench.folder / way).glob("wandb/offline-run-*"))
    ids = {path.name.split("-")[-1] for path in starts}
    record = {"starts": len(starts), "wandb_runs": len(ids)}
    return record | {"differences": bench.differences("unbroken", way)}


PARTS = {
    "same": lambda bench: {"float64": same(bench, "double", *DOUBLE), "float32": same(bench, "single", *SGD)},
    "killed": lambda bench: broken(bench, "killed"),
    "cut": lambda bench: broken(bench, "cut"),
    "worker": lambda bench: broken(bench, "worker"),
    "rendezvous": rendezvous_lost,
}


def main() -> None:
    """Runs the parts, prints them, and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--timeout_s", type=float, default=45.0, help="of the heartbeat")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    parser.add_argument("--output", type=Path, help="path without ending: writes .md and .json")
    parser.add_argument("--keep", type=Path, help="keep the runs and what they printed in this new folder")
    args = parser.parse_args()
    if problem := Network.problem():
        sys.exit(f"two_hosts.py: {problem}")
    # so that a stop, too, takes the namespaces away
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start = time.time()
    results = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        if args.keep:
            stack.callback(shutil.copytree, folder, args.keep)
        bench = Bench(stack.enter_context(Network()), folder, args.timeout_s)
        for part in args.parts:
            print(f"{part} …", file=sys.stderr, flush=True)
            results[part] = PARTS[part](bench)
    text = json.dumps(results).replace(f"{folder}/", "")
    record = {**provenance(), "machine": machine(), "seconds": round(time.time() - start), "timeout_s": args.timeout_s}
    record["results"] = json.loads(text)
    print(json.dumps(record, indent=2) if args.json else report(record))
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        args.output.with_suffix(".md").write_text(report(record))


if __name__ == "__main__":
    main()
