"""Training on two hosts, as network namespaces on this machine, and what happens when one of them dies. Needs root.

python benchmarks/reliability/two_hosts.py [--parts same killed …] [--json] [--output results/two_hosts]
"""

from __future__ import annotations

import argparse
import json
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

from two_hosts_jobs import WAIT_S, Bench, error_lines, wait_until
from two_hosts_network import Network
from two_hosts_report import report

from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance

DOUBLE = ("--trainer.precision=64-true",)
SGD = ('--model.optimizer={"class_path":"torch.optim.SGD","init_args":{"lr":0.05,"momentum":0.9}}',)
FEW_STEPS = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=10")
LONG = (
    "--trainer.max_epochs=3",
    "--last_checkpoint.steps=5",
    '--trainer.callbacks=[{"class_path":"slow.Slow","init_args":{"seconds":0.25}}]',
)
KILL_AT = 30
"""Step at which a host dies: in the middle of the second epoch of 22 or 23 steps."""
AGENT_S = 60
"""How long a torchrun that has lost its rendezvous is waited for."""


def same(bench: Bench, name: str, *options: str) -> dict[str, Any]:
    """Twenty steps on both hosts beside the same in one process."""
    bench.on_one(f"one-{name}", *FEW_STEPS, *options)
    bench.on_both(f"two-{name}", *FEW_STEPS, *options)
    return bench.differences(f"one-{name}", f"two-{name}")


def unbroken(bench: Bench) -> None:
    """The run that broken ones are compared with."""
    if not (bench.folder / "unbroken").exists():
        bench.on_both("unbroken", *LONG)


def dies(bench: Bench, way: str, victim: str, rendezvous: str) -> tuple[dict[str, Any], Any, Any]:
    """A host dies in the middle of a run; what is told on the other, whose job stays, and the dead one's."""
    unbroken(bench)
    network = bench.network
    jobs = {host: bench.torchrun(host, way, *LONG, rendezvous=rendezvous) for host in network.hosts}
    (other, _), (job, log) = jobs.pop(victim), *jobs.values()
    survivor = next(iter(set(network.hosts) - {victim}))
    bench.wait_for_step(way, KILL_AT)
    before = set(network.pids(survivor)) - {job.pid}
    start = time.monotonic()
    if way == "worker":
        network.kill(victim, only="bnnlight")
    elif way == "killed":
        network.kill(victim)
    else:
        network.cut(victim)
    wait_until(lambda: error_lines(log) or job.poll() is not None, f"{survivor} said nothing after {way}")
    found = {"seconds": round(time.monotonic() - start, 1)}
    # those of the job: torchrun stays, or not
    wait_until(lambda: not before & set(network.pids(survivor)), "processes of the job stayed")
    found["gone_after"] = round(time.monotonic() - start, 1)
    found["error"] = (error_lines(log) or [""])[0].removeprefix("bnnlight fit: error: ")
    return found, (job, log), other


def broken(bench: Bench, way: str, victim: str = "host-b") -> dict[str, Any]:
    """A host dies and comes back, while torchrun waits on the other, where the rendezvous is."""
    rendezvous = next(iter(set(bench.network.hosts) - {victim}))
    found, (job, _), other = dies(bench, way, victim, rendezvous)
    if way != "worker":
        comes_back(bench, other, victim)
        other, _ = bench.torchrun(victim, way, *LONG, rendezvous=rendezvous)
    found["torchrun"] = "waits" if job.poll() is None else f"ended with {job.poll()}"
    found["exit"] = [job.wait(WAIT_S), other.wait(WAIT_S)]
    return found | resumed(bench, way)


def rendezvous_lost(bench: Bench) -> dict[str, Any]:
    """Host B dies, and the rendezvous is on B: torchrun on A is lost too, and both are started again."""
    way = "rendezvous"
    found, (job, log), other = dies(bench, way, "host-b", "host-b")
    try:
        code = job.wait(AGENT_S)
        found["torchrun"] = f"ends with {code}"
    except subprocess.TimeoutExpired:
        job.terminate()
        try:
            job.wait(AGENT_S / 4)
            found["torchrun"] = f"hangs for {AGENT_S} s and more, until SIGTERM"
        except subprocess.TimeoutExpired:
            job.kill()
            found["torchrun"] = f"hangs for {AGENT_S} s and more, until SIGKILL"
        job.wait()
    errors = [line for line in log.read_text().splitlines() if re.match(r"torch\S*Error", line)]
    found["torchrun_error"] = errors[-1] if errors else ""
    comes_back(bench, other, "host-b")
    jobs = [bench.torchrun(host, way, *LONG, rendezvous="host-b") for host in bench.network.hosts]
    found["exit"] = [again.wait(WAIT_S) for again, _ in jobs]
    return found | resumed(bench, way)


def comes_back(bench: Bench, other: subprocess.Popen, victim: str) -> None:
    """A dead host is on the network again, with nothing running."""
    bench.network.kill(victim)
    other.wait()
    bench.network.mend(victim)
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
    "first": lambda bench: broken(bench, "first", "host-a"),
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
