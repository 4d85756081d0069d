"""Reads the files that Weights & Biases keeps of a run, one for each time that it was started."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

STEP_KEY = "trainer/global_step"
"""What rows are counted by: the optimizer steps, as Lightning logs them; W&B's own step counts calls of the logger."""

_TIME = "%Y%m%d_%H%M%S"
"""How W&B writes the time into the folders' names."""


@dataclass
class Fragment:
    """What one ``.wandb`` file holds.

    Attributes:
        path: of the file.
        run_id: the same for all fragments of a run.
        name, project: of the run.
        started: ISO 8601 time of this start.
        config: the run's config as a nested dictionary.
        rows: logged rows in order, ``{key: value, "_step": …, "trainer/global_step": …}``; the value of pictures
            and histograms is a dictionary: ``_type``, ``count``, ``width``, ``filenames``, ``values`` ….
        summary: last, best values and what else was written into the run's summary; keys joined by dots.
        exit_code: None where the run did not end by itself.
        problems: what the reader had to say: cut off, damaged.
    """

    path: Path
    run_id: str = ""
    name: str = ""
    project: str = ""
    started: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    problems: list[str] = field(default_factory=list)


def find_fragments(folder: Path) -> list[Path]:
    """The ``.wandb`` files in a folder, in the order of their start.

    Args:
        folder: a run's directory of W&B (``offline-run-TIME-ID``), one that holds such, or one with ``wandb/`` in it.
    """
    patterns = ("run-*.wandb", "*run-*/run-*.wandb", "wandb/*run-*/run-*.wandb")
    files = next(filter(None, ([*folder.glob(pattern)] for pattern in patterns)), [])
    # TIME in the folder's name is that of the start, to the second; files of one second by their own time
    return sorted(files, key=lambda path: (path.parent.name.split("run-", 1)[-1], path.stat().st_mtime))


def date_back(folder: Path) -> None:
    """Renames starts of a run that lie in the future, as the clock was set back since, to the seconds before now.

    W&B names the folder of a start by its time, and sends them in the order of their names.

    Args:
        folder: ``wandb`` of a run that nobody writes to.
    """
    now = datetime.fromtimestamp(int(time.time()))  # as W&B does it
    starts = {path.parent for path in find_fragments(folder)} if folder.is_dir() else set()
    later = sorted(start for start in starts if start.name.split("run-", 1)[-1] >= f"{now:{_TIME}}")
    for back, start in enumerate(reversed(later), 1):
        kind, rest = start.name.split("run-", 1)
        moved = f"{now - timedelta(seconds=back):{_TIME}}"
        start.rename(start.with_name(f"{kind}run-{moved}{rest[len(moved) :]}"))


def read_fragment(path: Path) -> Fragment:
    """Reads one file with W&B's own reader; one that is cut off or damaged as far as it goes.

    Args:
        path: of the ``.wandb`` file.

    Raises:
        ValueError: not a word can be read.
    """
    fragment = Fragment(path, run_id=path.stem.removeprefix("run-"))
    # the command line is the one public way to the records, and `python -m` finds it whatever PATH is
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for record in _records(process.stdout):
            _take(fragment, record)
        words = process.stderr.read().strip()
    if words:
        fragment.problems += [line.removeprefix("wandb leet inspect: ") for line in words.splitlines()]
    if process.returncode or (not fragment.started and not fragment.rows):
        why = fragment.problems[-1] if fragment.problems else "it is empty: its run was killed at once"
        raise ValueError(f"{path}: {why}")
    return fragment


def _records(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.strip():
            yield json.loads(line)


def _take(fragment: Fragment, record: dict[str, Any]) -> None:
    kind = record.get("type")
    content = record.get(kind) or {}
    if kind == "run":
        fragment.run_id = content.get("run_id", fragment.run_id)
        fragment.name = content.get("display_name", fragment.name)
        fragment.project = content.get("project", fragment.project)
        fragment.started = content.get("start_time", fragment.started)
        fragment.config |= _without_own(content.get("config", {}).get("update", {}))
    elif kind == "config":
        fragment.config |= _without_own(content.get("update", {}))
    elif kind == "history":
        fragment.rows.append(_gather_media(content.get("item", {})))
    elif kind == "summary":
        fragment.summary |= content.get("update", {})
    elif kind == "exit":
        fragment.exit_code = content.get("exit_code", 0)


def _gather_media(row: dict[str, Any]) -> dict[str, Any]:
    """A row with pictures and histograms under their own key; W&B's reader spreads them over KEY._type, KEY.width …."""
    media = {key.removesuffix("._type"): {} for key in row if key.endswith("._type")}
    gathered: dict[str, Any] = {}
    for key, value in row.items():
        owner = next((name for name in media if key.startswith(f"{name}.")), None)
        if owner is None:
            gathered[key] = value
        else:
            gathered.setdefault(owner, media[owner])[key.removeprefix(f"{owner}.")] = value
    return gathered


def _without_own(config: dict[str, Any]) -> dict[str, Any]:
    """Without what W&B keeps for itself, under names with an underscore in front."""
    return {key: value for key, value in config.items() if not key.startswith("_")}
