"""Reads MLflow's local stores, files and SQLite, without MLflow.

MLflow itself refuses a store of files by now, and a database of another version. Both are plain enough to be read
as they are, and nothing is written to them.
"""

from __future__ import annotations

import ast
import contextlib
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bnnlight.tracking.stores.stored import Stored

_DATABASE = "mlflow.db"
_TRASH = ".trash"
"""Where MLflow keeps deleted experiments."""
_RUN_NAME = "mlflow.runName"

Place = tuple[Path, str]
"""A folder of a run, or a database, and the run's id."""


def find_mlflow_runs(path: Path) -> list[Place]:
    """The runs in a store that are not deleted, in the order of their start.

    Args:
        path: a folder of MLflow's: of the store, of an experiment or of a run; or a SQLite file, or a folder with
            ``mlflow.db``.

    Raises:
        ValueError: a database cannot be read.
    """
    database = path / _DATABASE if path.is_dir() else path
    if database.is_file():
        return [(database, run_id) for run_id in _ids(database)] if _is_database(database) else []
    found = []
    for file in path.rglob("meta.yaml") if path.is_dir() else ():
        if _TRASH in file.relative_to(path).parts:
            continue
        meta = _meta(file.parent)
        if "artifact_uri" in meta and "experiment_id" in meta and meta.get("lifecycle_stage") != "deleted":
            found.append((meta.get("start_time") or 0, file.parent, str(meta.get("run_id") or file.parent.name)))
    return [(folder, run_id) for _, folder, run_id in sorted(found) if (folder / "metrics").is_dir()]


def read_mlflow_run(place: Place) -> Stored:
    """Reads a run of :func:`find_mlflow_runs`.

    Raises:
        ValueError: a database cannot be read.
    """
    path, run_id = place
    stored = _of_files(path, run_id) if path.is_dir() else _of_database(path, run_id)
    if not stored.points:
        stored.problems.append(f"{path}: no figures of run {stored.name}")
    return stored


def _of_files(folder: Path, run_id: str) -> Stored:
    meta = _meta(folder)
    tag = folder / "tags" / _RUN_NAME
    name = meta.get("run_name") or (tag.read_text().strip() if tag.exists() else "")
    stored = Stored(str(name or run_id), run_id)
    for file in _files(folder / "params"):
        stored.config[_dotted(file.relative_to(folder / "params").as_posix())] = _value(file.read_text())
    for file in _files(folder / "metrics"):
        key = file.relative_to(folder / "metrics").as_posix()
        for line in file.read_text().splitlines():
            # time, value, step, and of late what it was measured on
            parts = line.split()
            if len(parts) >= 2:
                stored.points.append((key, int(parts[2]) if len(parts) > 2 else 0, float(parts[1])))
    return stored


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _meta(folder: Path) -> dict[str, Any]:
    try:
        meta = yaml.safe_load((folder / "meta.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _of_database(path: Path, run_id: str) -> Stored:
    with _opened(path) as ask:
        (name,) = next(iter(ask("SELECT name FROM runs WHERE run_uuid = ?", run_id)), ("",))
        stored = Stored(name or run_id, run_id)
        params = ask("SELECT key, value FROM params WHERE run_uuid = ?", run_id)
        stored.config = {_dotted(key): _value(value) for key, value in params}
        figures = "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp"
        for key, step, value, is_nan in ask(figures, run_id):
            stored.points.append((key, int(step), math.nan if is_nan else float(value)))
    return stored


def _ids(path: Path) -> list[str]:
    with _opened(path) as ask:
        active = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time"
        return [run_id for (run_id,) in ask(active)]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        with contextlib.closing(connection):
            yield lambda query, *values: connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise ValueError(f"{path}: not an MLflow store that can be read ({error})") from error


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


def _dotted(key: str) -> str:
    """A parameter's key with the dots of a config; Lightning joins its parts by slashes."""
    return key.replace("/", ".")


def _value(text: str) -> Any:
    """What a parameter was before MLflow made text of it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
