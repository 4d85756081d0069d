"""Processor time of help and of wrong command lines, of this checkout and of an earlier commit, in turn."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bnnlight.cli import _VERBS

GOAL_S = 1.5
ERRORS = (
    "fti",
    "fit",
    "fit --config qickstart",
    "fit --config broken.yaml",
    "fit --config quickstart --fooo 3",
    "fit --config quickstart --trainer.max_epoch 3",
    "fit --config quickstart --data.batch_size ten",
    "fit --config quickstart --model.backbone.widht 1",
    "fit --config quickstart --trainer.max_epochs -3",
    "test --config quickstart --ckpt_path nope.ckpt",
    "export --ckpt_path nope.ckpt --format openvino",
    "export --ckpt_path nope.ckpt --format tflite",
    "pckh nope.mat gt.mat",
    "oks --annotations nope.json --predictions p.json",
    "predict photos --model nope.ckpt",
    "matrix nope",
)


def measure(before: str | None, repeats: int) -> dict[str, Any]:
    """Seconds of processor time, user's and system's, of a process each, the median over the repeats.

    Args:
        before: a commit to measure beside this checkout; None: none.
        repeats: how often each is run; of the earlier commit once.

    Returns:
        ``help`` and ``error``: command line → ``after`` and, with a commit, ``before``.
    """
    root = Path(__file__).parents[2]
    lines = {"help": [f"{verb} --help" for verb in _VERBS], "error": list(ERRORS)}
    with tempfile.TemporaryDirectory() as folder, _checkout(root, before) as earlier:
        (Path(folder) / "broken.yaml").write_text("model: [1\n")
        seconds(root, folder, "fit --config quickstart --no_resume --help")  # the files are in the system's cache then
        record: dict[str, Any] = {}
        for kind, texts in lines.items():
            record[kind] = {}
            for text in texts:
                row = {"after": statistics.median(seconds(root, folder, text) for _ in range(repeats))}
                if earlier:
                    # a verb that was not there yet has no time
                    with contextlib.suppress(RuntimeError):
                        row["before"] = seconds(earlier, folder, text)
                record[kind][text] = row
    return {"goal_s": GOAL_S, "before_commit": before, **record}


def seconds(root: Path, folder: str, line: str) -> float:
    """Of one command line, run in a folder with the package of a checkout.

    Raises:
        RuntimeError: it ended otherwise than help and wrong command lines do.
    """
    used = _children_s()
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "80"}
    command = [sys.executable, "-m", "bnnlight", *line.split()]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    is_help = "--help" in line
    if done.returncode != (0 if is_help else 2):
        raise RuntimeError(f"{line}: exit code {done.returncode}: {done.stderr.strip()}")
    return _children_s() - used


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def _checkout(root: Path, commit: str | None) -> Iterator[Path | None]:
    if commit is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "earlier"
        git = ["git", "-C", str(root), "worktree"]
        subprocess.run([*git, "add", "--detach", str(place), commit], check=True, capture_output=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True, capture_output=True)


def rows(record: dict[str, Any]) -> list[str]:
    """Two tables in Markdown."""
    lines: list[str] = []
    for kind, title in (("help", "help"), ("error", "wrong command line, told in one line")):
        earlier = f" | before ({record['before_commit']})" if record["before_commit"] else ""
        lines += ["", f"| {title} | processor time{earlier} | goal |", f"|---|---|---|{'---|' if earlier else ''}"]
        for text, row in record[kind].items():
            old = f" | {row['before']:.2f} s" if "before" in row else " | –" if earlier else ""
            lines.append(f"| `bnnlight {text}` | {row['after']:.2f} s{old} | ≤ {record['goal_s']:g} s |")
    return lines
