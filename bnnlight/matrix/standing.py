"""What there is of each method's runs, as their folders tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnlight.matrix.choice import Choice, choose
from bnnlight.matrix.plan import Method, Options, Plan
from bnnlight.matrix.runs import Run, final_runs, search_runs

Found = list[tuple[Run, dict[str, Any] | None]]
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
    search: Found
    final: Found

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


def is_done(record: dict[str, Any] | None) -> bool:
    """Whether a run has its results; a diverged search run is one too, and has none."""
    return record is not None and ("results" in record or "diverged" in record)


def figure(run: Run, record: dict[str, Any], metric: str) -> float:
    """What counts of a run that is done.

    Raises:
        ValueError: it is not among the results; the message says what is.
    """
    results, key = record["results"]["results"], run.key(metric)
    if key not in results:
        raise ValueError(f"{run.folder}/results.json has no {key!r}: it has {', '.join(results)}")
    return results[key]


def look(plan: Plan, folder: Path, more: Options) -> dict[str, Standing]:
    """Reads what there is of all methods.

    Args:
        plan: of the matrix.
        folder: of its runs.
        more: options handed on to every run.

    Raises:
        ValueError: a run was made with other options than are asked for now.
    """
    searches = {name: _found(list(search_runs(plan, method, folder, more))) for name, method in plan.methods.items()}
    return {name: _standing(plan, method, searches, folder, more) for name, method in plan.methods.items()}


def _standing(plan: Plan, method: Method, searches: dict[str, Found], folder: Path, more: Options) -> Standing:
    choice, own = None, searches[method.name]
    if plan.search is not None:
        done = [(run, record) for run, record in searches[method.rate_of] if is_done(record)]
        figures = {
            (run.value, run.seed): None if "diverged" in record else figure(run, record, plan.metric)
            for run, record in done
        }
        choice = choose(plan.search, plan.direction, figures)
        if choice.value is None:
            return Standing(method, choice, own, [])
    value = choice.value if choice else None
    return Standing(method, choice, own, _found(list(final_runs(plan, method, value, folder, more))))


def _found(runs: Sequence[Run]) -> Found:
    return [(run, run.record()) for run in runs]
