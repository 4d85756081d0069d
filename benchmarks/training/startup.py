"""How long a user waits: for help, for the first training step, and for data between steps.

    python benchmarks/training/startup.py --cifar10 DIR --lsp DIR --lspet DIR [--output results/startup]
    python benchmarks/training/startup.py --command_line --before COMMIT --output results/startup

Each is measured in processes of its own, as the command line starts them, with W&B offline. Reported are, with the
goals of each beside them,

- seconds of ``bnnlight --help`` (median over --repeats);
- processor time of the help of each verb and of some wrong command lines, which a busy machine does not lengthen,
  beside that of an earlier commit; ``--command_line`` measures this alone, and keeps what else is in the record;
- seconds from the start of the process ``bnnlight fit`` to the end of its first optimizer step, for a config of
  CIFAR-10 and one of poses, with the first look at the validation data that Lightning takes before it (median);
- the share of the step that ``time/data`` says is waiting for data, over --steps steps after as many to warm up, with
  the default number of loader processes and with none, which is what the data cost where nothing hides them. Loader
  processes take their share of the cores, which lengthens the step and is not a waiting: step times stand beside the
  shares, and the processor time of all child processes (the loaders, and W&B's) over the number of steps.

Prints JSON; with --output writes it and a table to .json and .md. The file cache is warmed by a first run that
is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import startup_command_line

HELP_GOAL_S, FIRST_STEP_GOAL_S, WAITING_GOAL = 2.0, 10.0, 0.02
_BNNLIGHT = [sys.executable, "-m", "bnnlight"]
_ENVIRONMENT = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
_QUIET = ["--test_after_fit=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
_BARE = ["--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0", "--trainer.enable_checkpointing=false"]
_CHILD = """
import resource, sys
from bnnlight.cli import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("cpu_s", used.ru_utime + used.ru_stime)
sys.exit(code)
"""


def seconds(command: list[str]) -> float:
    """Of a process, from its start to its end.

    Raises:
        subprocess.CalledProcessError: it ended with an error.
    """
    begin = time.perf_counter()
    subprocess.run(command, env=_ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def first_step_s(options: list[str]) -> float:
    """Seconds from the start of ``fit`` to the end of its first optimizer step, when its figures are written.

    Raises:
        RuntimeError: it ended before that.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run" / "metrics.jsonl"
        command = [*_BNNLIGHT, "fit", *options, *_QUIET, f"--run_dir={file.parent}", "--trainer.max_steps=1"]
        begin = time.perf_counter()
        with subprocess.Popen(
            [*command, "--step_time.interval=1"], env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while not (file.exists() and '"time/step"' in file.read_text()):
                if process.poll() is not None:
                    raise RuntimeError(f"no first step: see {shlex.join(command)}")
                time.sleep(0.02)
            return time.perf_counter() - begin


def fit(options: list[str]) -> str:
    """What a run prints.

    Raises:
        RuntimeError: it ended with an error, whose last line this is.
    """
    command = [sys.executable, "-c", _CHILD, "fit", *options, *_QUIET]
    done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout


def waiting(options: list[str], num_steps: int, num_workers: int | None) -> dict[str, float]:
    """The share of a step that is waiting, with its parts, behind as many steps to warm up."""
    if num_workers is not None:
        options = [*options, f"--data.num_workers={num_workers}"]
    counted = [f"--trainer.max_steps={2 * num_steps}", f"--step_time.interval={num_steps}"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        printed = fit([*options, *_BARE, *counted, f"--run_dir={run}"])
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "time/step" in row][-1]
    children_s = next(float(line.split()[1]) for line in printed.splitlines() if line.startswith("cpu_s "))
    return {
        "step_s": last["time/step"],
        "data_s": last["time/data"],
        "share": last["time/data"] / last["time/step"],
        "children_cpu_s_a_step": children_s / (2 * num_steps),
    }


def machine() -> dict[str, Any]:
    """Where, and with what, it was measured."""
    import torch

    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": names[0].split(": ")[1] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
        "command": "python " + shlex.join(sys.argv),
    }


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = ["| | measured | goal |", "|---|---|---|"]
    lines += [f"| `bnnlight --help` | {record['help_s']:.2f} s | ≤ {HELP_GOAL_S:g} s |"]
    for name, took in record["first_step_s"].items():
        lines.append(f"| `fit`, {name}: to its first step | {took:.1f} s | ≤ {FIRST_STEP_GOAL_S:g} s |")
    for name, runs in record["waiting"].items():
        for workers, run in runs.items():
            goal = "" if workers == "none" else f"≤ {100 * WAITING_GOAL:g} %"
            parts = f"{1000 * run['data_s']:.1f} of {1000 * run['step_s']:.0f} ms"
            lines.append(f"| waiting, {name}, loaders: {workers} | {100 * run['share']:.2f} % ({parts}) | {goal} |")
    about = [f"- {key}: {value}" for key, value in record["machine"].items()]
    part = record.get("command_line")
    if part:
        lines += [*startup_command_line.rows(part), "", "The tables of processor time:", ""]
        lines += [f"- {key}: {value}" for key, value in part["machine"].items()]
        about = ["The first table:", "", *about]
    return "\n".join(["# Start-up, and waiting for data", "", *lines, "", *about, ""])


def main() -> None:
    """Measures all, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--cifar10", help="folder of CIFAR-10")
    parser.add_argument("--lsp", help="folder of LSP")
    parser.add_argument("--lspet", help="folder of LSP Extended")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--command_line", action="store_true", help="measure help and wrong command lines alone")
    parser.add_argument("--before", metavar="COMMIT", help="to measure them beside")
    parser.add_argument("--output", type=Path, help="path of the .json and the .md, without its ending")
    args = parser.parse_args()
    if args.command_line and args.output and args.output.with_suffix(".json").is_file():
        record = json.loads(args.output.with_suffix(".json").read_text(encoding="utf-8"))
    elif args.command_line or None in (args.cifar10, args.lsp, args.lspet):
        parser.error("give --cifar10, --lsp and --lspet, or --command_line and the --output of an earlier record")
    else:
        record = _waits(args)
    record["command_line"] = {"machine": machine(), **startup_command_line.measure(args.before, args.repeats)}
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        args.output.with_suffix(".md").write_text(table(record), encoding="utf-8")
    print(json.dumps(record, indent=2))


def _waits(args: argparse.Namespace) -> dict[str, Any]:
    poses = [f"--data.lsp_root={args.lsp}", f"--data.lspet_root={args.lspet}"]
    configs = {
        "resnet_small_cifar10": ["--config=configs/resnet_small_cifar10.yaml", f"--data.root={args.cifar10}"],
        "hg_lsp_small": ["--config=configs/hg_lsp_small.yaml", *poses],
    }
    first_step_s(configs["hg_lsp_small"])
    first = {name: [first_step_s(c) for _ in range(args.repeats)] for name, c in configs.items()}
    kinds = {"default": None, "none": 0}
    return {
        "machine": machine(),
        "goals": {"help_s": HELP_GOAL_S, "first_step_s": FIRST_STEP_GOAL_S, "waiting": WAITING_GOAL},
        "help_s": statistics.median(seconds([*_BNNLIGHT, "--help"]) for _ in range(args.repeats)),
        "first_step_s": {name: statistics.median(took) for name, took in first.items()},
        "first_step_all_s": first,
        "waiting": {
            name: {kind: waiting(c, args.steps, number) for kind, number in kinds.items()}
            for name, c in configs.items()
        },
    }


if __name__ == "__main__":
    main()
