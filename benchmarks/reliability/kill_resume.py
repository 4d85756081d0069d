"""Kills a run again and again, lets it go on each time, and compares it with the run that was never stopped.

    python benchmarks/reliability/kill_resume.py --root data/cifar10_jpeg \
        [--kills 20] [--seed 0] [--output results/kill_resume.md]

A small network on 2,560 pictures of CIFAR-10, nine epochs, saved every third step and after each validation, with a
loader process and W&B offline. The run is killed by SIGKILL, all its processes at once, in turn

- at a random moment of its start, before it trains;
- at a random moment of the training, validations included;
- within a save: as soon as a file that is being written is seen, or some thousandths of a second later;

and started again by the same command line, until it was killed as often as asked. Then it may end. Compared are, bit
for bit: weights and optimizer of the last and the best checkpoint; every figure that was logged with its step, from
metrics.jsonl and from W&B's own files (not seconds and bytes in use); the checksums of all batches in the order in
which they were trained on, as the run itself kept them; and the number of W&B run ids. Prints JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import lightning as L
import torch

from bnnlight.tracking.fragments import STEP_KEY, find_fragments, read_fragment

CONFIG = Path(__file__).parents[2] / "configs/resnet_small_cifar10.yaml"
OPTIONS = (
    *("--trainer.max_epochs=9", "--data.train_size=2560", "--data.val_size=256", "--data.batch_size=64"),
    *("--data.num_workers=1", "--model.backbone.width=0.125", "--trainer.log_every_n_steps=1"),
    *("--flip_rates.interval=4", "--alphas.interval=10", "--activations.interval=10", "--factor_ranks.interval=40"),
    "--last_checkpoint.steps=3",
)
TRAINING_S, STARTING_S = 1.5, 6.0
"""Longest time from the first step, and from the start of the process, to a kill."""


class Batches(L.Callback):
    """Keeps a checksum of each batch that was trained on, in the run's checkpoints."""

    def __init__(self) -> None:
        self.checksums: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        self.checksums.append(zlib.crc32(batch[0].numpy().tobytes()))

    def state_dict(self) -> dict[str, Any]:
        return {"checksums": list(self.checksums)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.checksums = list(state_dict["checksums"])


class Run:
    """One run directory and the command that begins the run in it, or goes on with it.

    Args:
        run_dir: the directory.
        config: of the run.
        options: behind the config.
        batches: import path of :class:`Batches`, or of a class of that name.
    """

    def __init__(
        self, run_dir: Path, config: Path, options: tuple[str, ...], batches: str = f"{Path(__file__).stem}.Batches"
    ) -> None:
        callback = json.dumps([{"class_path": batches}])
        own = (f"--run_dir={run_dir}", "--resume", "--test_after_fit=false", "--trainer.accelerator=cpu")
        quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--num_threads=1")
        command = ["-m", "bnnlight", "fit", "--config", str(config), *options, *own, *quiet]
        self.command = [sys.executable, *command, f"--trainer.callbacks={callback}"]
        self.run_dir, self.log = run_dir, run_dir.with_suffix(".log")
        self._left: dict[Path, int] = {}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT", "PL_"))}
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2]), *sys.path])
        self.environment = {**kept, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def start(self) -> subprocess.Popen:
        with self.log.open("a") as log:
            return subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def end(self) -> None:
        """Lets it end by itself.

        Raises:
            RuntimeError: it failed.
        """
        code = self.start().wait()
        if code:
            raise RuntimeError(f"exit code {code}: {self.log.read_text()[-2000:]}")

    def kill(self, kind: str, rng: random.Random) -> bool:
        """Starts it and kills it, all its processes at once.

        Args:
            kind: "start", "training" or "save".
            rng: draws the moment.

        Returns:
            Whether a file was being written as it was killed.

        Raises:
            RuntimeError: it ended before.
        """
        self._left = self._parts()
        process = self.start()
        if kind == "start":
            time.sleep(rng.uniform(0, STARTING_S))
        else:
            self._wait_for_training(process)
            time.sleep(rng.uniform(0, TRAINING_S))
        while kind == "save" and process.poll() is None:
            if self._is_saving():
                time.sleep(rng.uniform(0, 0.005))
                break
        if process.poll() is not None:
            raise RuntimeError(f"ended before it was killed: {self.log.read_text()[-2000:]}")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return self._is_saving()

    def _wait_for_training(self, process: subprocess.Popen) -> None:
        rows = self.run_dir / "metrics.jsonl"
        before = rows.stat().st_size if rows.exists() else 0
        saved = self._saved()
        while process.poll() is None:
            logged = rows.exists() and rows.stat().st_size != before
            if logged or self._saved() != saved or self._is_saving():
                return
            time.sleep(0.002)

    def _saved(self) -> int:
        with contextlib.suppress(OSError):
            return (self.run_dir / "checkpoints/last.ckpt").stat().st_mtime_ns
        return 0

    def _parts(self) -> dict[Path, int]:
        found = {}
        for path in (self.run_dir / "checkpoints").glob("*.part"):
            with contextlib.suppress(OSError):
                found[path] = path.stat().st_mtime_ns
        return found

    def _is_saving(self) -> bool:
        """Whether there is a part that an earlier kill has not left."""
        return any(self._left.get(path) != changed for path, changed in self._parts().items())


def differences(whole: Path, broken: Path) -> list[str]:
    """What differs between two run directories; empty where nothing does."""
    found = []
    for name in ("last", "best"):
        one, other = (torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for run in (whole, broken))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
            if not _same(one[part], other[part]):
                found.append(f"{name}.ckpt: {part}")
        if name == "last":
            kept = [c["callbacks"]["Batches"]["checksums"] for c in (one, other)]
            if kept[0] != kept[1] or len(kept[0]) != one["global_step"]:
                found.append("batches trained on")
    if figures(whole) != figures(broken):
        found.append("metrics.jsonl")
    if wandb_figures(whole) != wandb_figures(broken):
        found.append("W&B's files")
    if len(wandb_ids(broken)) != 1:
        found.append(f"{len(wandb_ids(broken))} W&B run ids")
    return found


def figures(run_dir: Path) -> dict[tuple[int, str], list[float]]:
    """(step, key) → the values logged, without times and memory."""
    found: dict[tuple[int, str], list[float]] = {}
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step")
        for key, value in row.items():
            if not key.startswith(("time/", "mem/")) and key != "epoch":
                found.setdefault((step, key), []).append(value)
    return found


def wandb_figures(run_dir: Path) -> dict[str, Any]:
    """The same from W&B's files, all starts together, as ``bnnlight compare`` reads them, and the sheets."""
    command = [sys.executable, "-m", "bnnlight", "compare", "--json", str(run_dir / "wandb")]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    series = json.loads(done.stdout)["runs"][0]["series"]
    rows: list[dict[str, Any]] = []
    for path in find_fragments(run_dir):
        with contextlib.suppress(ValueError):  # of a start that was killed before W&B wrote a word
            rows += read_fragment(path).rows
    sheets = [(row[STEP_KEY], Path(row["val/pictures"]["filenames"][0]).name) for row in rows if "val/pictures" in row]
    # a name ends with the picture's own checksum, before which stands W&B's count of rows
    pictures = {"val/pictures": sorted((step, name.rsplit("_", 1)[1]) for step, name in sheets)}
    return {key: value for key, value in series.items() if not key.startswith(("time/", "mem/"))} | pictures


def wandb_ids(run_dir: Path) -> set[str]:
    """Ids of all W&B runs that a run directory holds."""
    return {path.name.rsplit("-", 1)[1] for path in run_dir.glob("wandb/offline-run-*")}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def compare(folder: Path, config: Path, options: tuple[str, ...], kinds: list[str], seed: int) -> dict[str, Any]:
    """Makes the unbroken run and the broken one.

    Args:
        folder: for the two.
        config: of both.
        options: behind the config.
        kinds: of the kills, in their order.
        seed: of their moments.

    Returns:
        What was done, and under ``differences`` what is not as it should be.
    """
    whole, broken = (Run(folder / name, config, options) for name in ("whole", "broken"))
    whole.end()
    rng, within_save = random.Random(seed), 0
    for number, kind in enumerate(kinds, 1):
        within_save += broken.kill(kind, rng)
        print(f"killed {number} of {len(kinds)} ({kind})", file=sys.stderr, flush=True)
    broken.end()
    last = torch.load(folder / "broken/checkpoints/last.ckpt", weights_only=True)
    return {
        "kills": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "killed_while_a_file_was_written": within_save,
        "steps": last["global_step"],
        "figures_compared": len(figures(folder / "whole")),
        "wandb_run_ids": len(wandb_ids(folder / "broken")),
        "differences": differences(folder / "whole", folder / "broken"),
    }


def report(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    kills = ", ".join(f"{count} {kind}" for kind, count in found["kills"].items())
    rows = [
        ("killed by SIGKILL", f"{sum(found['kills'].values())} times ({kills})"),
        ("… while a checkpoint was being written", found["killed_while_a_file_was_written"]),
        ("optimizer steps", found["steps"]),
        ("figures compared, each with its step", found["figures_compared"]),
        ("W&B run ids of the broken run", found["wandb_run_ids"]),
        ("differences from the unbroken run", ", ".join(found["differences"]) or "none, bit for bit"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        "# A run that is killed again and again\n\n"
        "Compared bit for bit with the run that was never stopped: weights, optimizer and schedule of the last and\n"
        "the best checkpoint, all logged figures in `metrics.jsonl` and in W&B's files, the batches in their order.\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        f"`{found['command']}`, commit {found['commit'][:12]}, torch {found['torch']}, {found['machine']}, "
        f"{found['seconds']:.0f} s.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data/cifar10_jpeg", help="CIFAR-10")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    begin = time.monotonic()
    kinds = [("save", "training", "save", "training", "start")[number % 5] for number in range(args.kills)]
    with tempfile.TemporaryDirectory() as folder:
        options = (*OPTIONS, f"--data.root={Path(args.root).resolve()}")
        found = compare(Path(folder), CONFIG, options, kinds, args.seed)
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    found |= {
        "seconds": time.monotonic() - begin,
        "seed": args.seed,
        "command": " ".join(["python", "benchmarks/reliability/kill_resume.py", *sys.argv[1:]]),
        "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "torch": torch.__version__,
        "machine": f"{os.cpu_count()} {platform.machine()} cores",
    }
    print(json.dumps(found, indent=2))
    if args.output:
        args.output.write_text(report(found))
    return 1 if found["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
