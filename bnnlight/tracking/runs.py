"""Reads runs: directories of `bnnlight fit`, local files of W&B, TensorBoard and MLflow, runs on W&B's server."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
import yaml

from bnnlight.tracking.fragments import STEP_KEY, find_fragments, read_fragment
from bnnlight.tracking.keys import current
from bnnlight.tracking.metrics_file import FILE_NAME, is_figure, read_rows
from bnnlight.tracking.settings import flatten
from bnnlight.tracking.stores.mlflow import find_mlflow_runs, read_mlflow_run
from bnnlight.tracking.stores.stored import Stored
from bnnlight.tracking.stores.tensorboard import find_event_folders, read_event_folder

_RESULTS = "results.json"
_SMALLER_IS_BETTER = "nme"
_ONLINE = re.compile(r"(?:https?://\S+?/)?([^/\s]+)/([^/\s]+)/(?:runs/)?([^/\s?]+)(?:\?\S*)?")


@dataclass
class Run:
    """One run, whatever it was read from and however often it was stopped.

    Attributes:
        name: of the run.
        source: what the user named.
        run_id: of W&B or MLflow; "" where there is none.
        config: flat, parts of a key joined by dots.
        series: key → step → value, in the order of the steps.
        results: key → best or final figure.
        num_starts: how often it was started.
        problems: what could not be read.
    """

    name: str
    source: str
    run_id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    series: dict[str, dict[int, float]] = field(default_factory=dict)
    results: dict[str, float] = field(default_factory=dict)
    num_starts: int = 1
    problems: list[str] = field(default_factory=list)

    def add_rows(self, rows: Iterable[dict[str, Any]], step_key: str) -> None:
        """Adds logged figures; of two values of one key at one step the later one stays."""
        for row in rows:
            if row.get(step_key) is None:
                continue
            step = int(row[step_key])
            for key, value in row.items():
                if key in (step_key, STEP_KEY) or key.startswith("_") or (number := as_number(value)) is None:
                    continue
                self.series.setdefault(current(key), {})[step] = number

    def finish(self) -> Run:
        """Sorts the steps and takes the results from the figures: the best of validation, the last of the rest."""
        self.series = {key: dict(sorted(values.items())) for key, values in sorted(self.series.items())}
        begin = self._last_stage()
        for key, values in self.series.items():
            if key.startswith("val/"):
                best = min if key.split("/")[-1].startswith(_SMALLER_IS_BETTER) or "loss" in key else max
                self.results[f"best {key}"] = best([v for step, v in values.items() if step > begin] or values.values())
            elif key.startswith(("test/", "train/")) or key == "time/processor":
                self.results[key if key.startswith("test/") else f"last {key}"] = list(values.values())[-1]
        return self

    @property
    def has_figures(self) -> bool:
        """Whether there is anything to compare: a run that was stopped at once has logged nothing."""
        return bool(self.series or self.results)

    def _last_stage(self) -> int:
        """The step at which the last stage began, before which no figure is the binary network's; -1 without stages."""
        stages = self.series.get("bnn/stage", {})
        last = [step for step, stage in stages.items() if stage == max(stages.values())]
        return min(last) if len(last) < len(stages) else -1


def as_number(value: Any) -> float | None:
    """A logged value as a number; None where it is none. W&B's files have NaN and infinity as words."""
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return float(value) if is_figure(value) else None


def read_runs(sources: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Reads runs; what belongs to one run of W&B, such as the fragments of a resumed one, is one run.

    Args:
        sources: directories of runs, offline directories of W&B or folders of such, ``.wandb`` files, folders of
            TensorBoard's event files, MLflow's stores (folders, or ``mlflow.db``), or ``entity/project/run``, also as
            the address of the run's page.

    Returns:
        The runs in the order they were named, and one line for each source that could not be read.
    """
    runs: list[Run] = []
    problems: list[str] = []
    files: list[tuple[str, Path]] = []
    for source in sources:
        try:
            path = Path(source).expanduser()
            if _is_run_dir(path):
                runs.append(read_run_dir(path))
            elif path.exists():
                fragments = [path] if path.suffix == ".wandb" else find_fragments(path)
                files += [(source, file) for file in fragments]
                others = [] if fragments else read_stores(path)
                if not fragments and not others:
                    raise ValueError(
                        f"{source}: no run in it: neither {FILE_NAME} nor files of W&B, TensorBoard or MLflow"
                    )
                runs += others
            elif match := _ONLINE.fullmatch(source):
                runs.append(read_online("/".join(match.groups())))
            else:
                raise ValueError(f"{source}: no such directory, and not of the form entity/project/run")
        except (ValueError, OSError) as error:
            problems.append(str(error))
    offline, unreadable = read_offline(files)
    return [*runs, *offline], [*problems, *unreadable]


def runs_in(source: str) -> list[str]:
    """The directories of runs in a folder that is none itself, sorted; all else as it is.

    What W&B, TensorBoard and MLflow keep in folders is found as those are read.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() or _is_run_dir(folder):
        return [source]
    found = []
    for place, names, files in os.walk(folder):
        # a config.yaml alone may be another program's
        if FILE_NAME in files or ("config.yaml" in files and (_RESULTS in files or "wandb" in names)):
            found.append(os.path.join(source, os.path.relpath(place, folder)))
            names.clear()
        names[:] = [name for name in names if not name.startswith(".")]
    return sorted(found) or [source]


def _is_run_dir(path: Path) -> bool:
    return (path / FILE_NAME).exists() or (path / "config.yaml").exists()


def read_run_dir(run_dir: Path) -> Run:
    """Reads a directory of `bnnlight fit`: ``config.yaml``, ``metrics.jsonl``, ``results.json``.

    Raises:
        ValueError: a file in it is damaged.
    """
    fragments = find_fragments(run_dir / "wandb")
    run = Run("-".join(run_dir.resolve().parts[-2:]), str(run_dir), num_starts=max(1, len(fragments)))
    run.run_id = fragments[-1].stem.removeprefix("run-") if fragments else ""
    if (run_dir / "config.yaml").exists():
        try:
            run.config = flatten(yaml.safe_load((run_dir / "config.yaml").read_text()) or {})
        except yaml.YAMLError as error:
            raise ValueError(f"{run_dir}/config.yaml: not valid YAML") from error
    if (run_dir / FILE_NAME).exists():
        run.add_rows(read_rows(run_dir / FILE_NAME), "step")
    elif fragments:
        readable, run.problems = read_offline([(str(run_dir), file) for file in fragments])
        for offline in readable[:1]:  # none where all were killed at once
            run.series, run.config = offline.series, run.config or offline.config
            run.problems += offline.problems
    run.finish()
    if not run.series and (run_dir / _RESULTS).exists():
        run.results = _read_results(run_dir / _RESULTS)
        run.problems.append(f"{run_dir}: only results, no curves: it was trained without a logger")
    return run


def _read_results(path: Path) -> dict[str, float]:
    try:
        results = json.loads(path.read_text())["results"]
        return {str(key): number for key, value in results.items() if (number := as_number(value)) is not None}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path.parent}: left out: its {path.name} is not the results of a run") from None


def read_offline(files: Sequence[tuple[str, Path]]) -> tuple[list[Run], list[str]]:
    """Reads W&B's files and puts those of one run together, in the order of their start.

    Args:
        files: what the user named, and the ``.wandb`` file.

    Returns:
        The runs, and one line for each file of which nothing could be read.
    """
    groups: dict[str, list[tuple[str, Any]]] = {}
    killed_at_once: list[str] = []
    problems = []
    for source, file in files:
        try:
            fragment = read_fragment(file)
        except ValueError as error:
            problems.append(str(error))
            killed_at_once.append(file.stem.removeprefix("run-"))
            continue
        groups.setdefault(fragment.run_id, []).append((source, fragment))
    runs = []
    for run_id, members in groups.items():
        members.sort(key=lambda member: member[1].started)
        source, last = members[-1]
        num_starts = len(members) + killed_at_once.count(run_id)
        run = Run(last.name or run_id, source, run_id, num_starts=num_starts)
        for _, fragment in members:
            run.config |= flatten(fragment.config)
            run.add_rows(fragment.rows, STEP_KEY)
            run.problems += [f"{fragment.path}: {problem}" for problem in fragment.problems]
        runs.append(run.finish())
    return runs, problems


def read_stores(path: Path) -> list[Run]:
    """Reads what TensorBoard and MLflow keep on the disk; empty where there is nothing of theirs.

    Args:
        path: of a folder or file, as :func:`find_event_folders` and :func:`find_mlflow_runs` take it.

    Raises:
        ValueError: it cannot be read.
    """
    found = [(folder, read_event_folder(folder)) for folder in (find_event_folders(path) if path.is_dir() else ())]
    found += [(place[0], read_mlflow_run(place)) for place in find_mlflow_runs(path)]
    return [_of_store(str(source), stored) for source, stored in found]


def _of_store(source: str, stored: Stored) -> Run:
    config = {key: value for name, part in stored.config.items() for key, value in flatten(part, str(name)).items()}
    run = Run(stored.name, source, stored.run_id, config=config, problems=stored.problems)
    run.add_rows(stored.rows(), "step")
    return run.finish()


def read_online(path: str) -> Run:
    """Reads a run from the server.

    Args:
        path: ``entity/project/run``.

    Raises:
        ValueError: it cannot be had; the message says why.
    """
    try:
        online = wandb.Api(timeout=30).run(path)
        run = Run(online.name, path, online.id, config=flatten(dict(online.config)))
        run.add_rows(online.scan_history(), STEP_KEY)
    except Exception as error:  # W&B raises several kinds, and requests' own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: {reason}") from error
    return run.finish()
