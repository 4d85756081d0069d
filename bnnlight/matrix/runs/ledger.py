"""The ledger of a matrix: what its runs gave, a line each, in a file that outlives their folders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bnnlight.matrix.runs.evidence import evidence, validations
from bnnlight.matrix.runs.files import write_text
from bnnlight.matrix.runs.run import Run, is_done

ENDING = ".runs.jsonl"
"""Behind the report's name."""

_RESULTS = ("version", "commit", "torch", "results")
"""What is kept of ``results.json``: all but what the rest of the line says already."""

Record = dict[str, Any]


class Ledger:
    """The runs that are done, ``OUTPUT.runs.jsonl``; what stands there is not made again, wherever its folder is.

    Of two lines of one run the later one counts: the files of several machines may be put behind each other. Lines of
    methods, seeds and values that the plan no longer has are kept.

    Args:
        path: of the file; it need not be there.
        metric: name behind ``val/``, of which a line keeps how it rose with the run's processor time; nothing is kept
            unless given.

    Raises:
        ValueError: a line is damaged; the message names it.
    """

    def __init__(self, path: Path, metric: str = "") -> None:
        self._path, self._metric = path, metric
        self._lines = _read(path)

    def __len__(self) -> int:
        return len(self._lines)

    def record(self, run: Run) -> Record | None:
        """What is kept of a run: of its folder if it is done there, else its line, else what its folder has.

        Raises:
            ValueError: the run there was asked for something else.
        """
        own = run.record()
        line = self._lines.get(run.name)
        if line is None or is_done(own):
            return own
        run.check(line["asked"], f"its line in {self._path}", "remove that line, or choose another --output")
        return line

    def add(self, runs: Iterable[tuple[Run, Record]]) -> None:
        """Writes the lines of runs that are done, if they are new."""
        lines = {run.name: self._line(run, record, self._lines.get(run.name, {})) for run, record in runs}
        if any(self._lines.get(name) != line for name, line in lines.items()):
            # another matrix may have written in the meantime
            self._lines = _read(self._path) | self._lines | lines
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines.values())
            write_text(self._path, text)

    def _line(self, run: Run, record: Record, before: Record) -> Record:
        line = {"run": run.name, **record}
        if "results" in record:
            line["results"] = {key: record["results"].get(key) for key in _RESULTS}
            # the folder may have lost its metrics.jsonl since
            earlier = before if before.get("results") == line["results"] else {}
            line.setdefault("evidence", evidence(run.folder) or earlier.get("evidence", {}))
            if self._metric and not run.is_search and "validations" not in line:
                line["validations"] = validations(run.folder, self._metric) or earlier.get("validations", [])
            # runs of versions that did not log it have none
            if not line.get("validations"):
                line.pop("validations", None)
        return json.loads(json.dumps(line))  # as it will be read again


def _read(path: Path) -> dict[str, Record]:
    records: dict[str, Record] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return records
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
            name, done = record["run"], isinstance(record["asked"], dict) and is_done(record)
        except (ValueError, KeyError, TypeError):
            done = False
        if not done:
            raise ValueError(f"{path}, line {number}: not the record of a run: put the line back, or remove it")
        records.pop(name, None)
        records[name] = record
    return records
