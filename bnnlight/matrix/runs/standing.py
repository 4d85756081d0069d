"""Reads which of each method's runs are done, from their folders and the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnlight.matrix.plan.plan import Plan
from bnnlight.matrix.plan.reading import Options
from bnnlight.matrix.plan.rows import Method
from bnnlight.matrix.runs.choice import Choice, choose
from bnnlight.matrix.runs.ledger import Ledger
from bnnlight.matrix.runs.run import Run, final_runs, is_done, search_runs

Records = list[tuple[Run, dict[str, Any] | None]]
"""Runs with what is kept of them; None where one was not begun."""


@dataclass(frozen=True)
class Standing:
    """Of one method.

    Attributes:
        method: of the plan.
        choice: of its value; None where the plan searches nothing.
        search: its own search runs.
        final: the runs of its row; none as long as the value is not chosen.
    """

    method: Method
    choice: Choice | None
    search: Records
    final: Records

    @property
    def is_chosen(self) -> bool:
        """Whether it is known with which value the final runs are made."""
        return self.choice is None or self.choice.value is not None

    @property
    def missing(self) -> list[Run]:
        """Runs that are to be made, or gone on with, as far as they are known yet."""
        return [run for run, record in (*self.search, *self.final) if not is_done(record)]

    @property
    def num_missing(self) -> int:
        """Of the runs, those included that are not known yet."""
        return len(self.missing) + (0 if self.is_chosen else len(self.method.seeds))

    @property
    def done(self) -> list[tuple[Run, dict[str, Any]]]:
        """Runs with their results."""
        return done_runs([*self.search, *self.final])


def done_runs(runs: Records) -> list[tuple[Run, dict[str, Any]]]:
    """Those that have their results."""
    return [(run, record) for run, record in runs if is_done(record)]


def figure(run: Run, record: dict[str, Any], metric: str) -> float:
    """What counts of a run that is done.

    Raises:
        ValueError: it is not among the results; the message says what is.
    """
    results, key = record["results"]["results"], run.key(metric)
    if key not in results:
        raise ValueError(f"{run.folder}/results.json has no {key!r}: it has {', '.join(results)}")
    return results[key]


def look(plan: Plan, folder: Path, extra: Options, ledger: Ledger) -> dict[str, Standing]:
    """Reads what there is of all methods.

    Args:
        plan: of the matrix.
        folder: of its runs.
        extra: options handed on to every run.
        ledger: of runs that are done.

    Raises:
        ValueError: a run was made with other options than are asked for now.
    """

    def records_of(runs: Iterable[Run]) -> Records:
        return [(run, ledger.record(run)) for run in runs]

    searches = {name: records_of(search_runs(plan, method, folder, extra)) for name, method in plan.methods.items()}
    standings = {}
    for name, method in plan.methods.items():
        choice = _choice(plan, method, searches[method.rate_of])
        final: Records = []
        if choice is None or choice.value is not None:
            final = records_of(final_runs(plan, method, choice.value if choice else None, folder, extra))
        standings[name] = Standing(method, choice, searches[name], final)
    return standings


def _choice(plan: Plan, method: Method, search: Records) -> Choice | None:
    if method.search is None:
        return None
    figures = {
        (run.value, run.seed): None if "diverged" in record else figure(run, record, plan.metric)
        for run, record in search
        if is_done(record)
    }
    return choose(method.search, plan.direction, figures)
