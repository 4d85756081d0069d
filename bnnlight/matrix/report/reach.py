"""How much processor time a run takes to reach a figure on held-out data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from bnnlight.matrix.plan.plan import Plan
from bnnlight.matrix.plan.units import Unit
from bnnlight.matrix.report.statistics import interval_record
from bnnlight.matrix.runs.standing import Standing, done_runs

Validations = Sequence[Sequence[float]]
"""(processor seconds since training began, figure) of each validation, in order."""

Record = dict[str, Any]


def seconds_to(validations: Validations, target: float, direction: str) -> float | None:
    """Processor seconds at the first validation with at least the target, or at most where less is better.

    Returns:
        None where no validation reaches it.
    """
    sign = 1 if direction == "max" else -1
    # figures are logged in single precision, where 0.7 is a little less
    least = sign * target - 1e-6 * abs(target)
    return next((seconds for seconds, value in validations if sign * value >= least), None)


def target_of(plan: Plan, standings: Mapping[str, Standing]) -> float | None:
    """The figure that is to be reached, as it is logged.

    Returns:
        None where it is the baseline's, and none of the baseline's runs is done; or one of them did not stay finite.
    """
    if isinstance(plan.reach, float):
        return plan.reach / Unit(plan.metric).scale
    key = f"last val/{plan.metric}"
    results = [record["results"]["results"] for _, record in done_runs(standings[plan.baseline].final)]
    last = [result[key] for result in results if key in result]
    return fmean(last) if last and all(map(math.isfinite, last)) else None


def reached(
    validations: Mapping[int, Validations], target: float | None, direction: str, base: Mapping[int, Validations]
) -> Record:
    """How soon the runs of a row reach the target.

    Args:
        validations: seed → validations, of the row's runs that are done.
        target: as it is logged; None where it is not known.
        direction: ``max`` or ``min``.
        base: as ``found``, of the baseline.

    Returns:
        ``by_seed``, seconds or None for a run that never reaches it, of the runs that logged their time;
        ``seconds``, mean and half interval over those that reach it, or None; ``of_baseline``, the same of the shares
        of the baseline's seconds, over the seeds of which both runs reach it, or None.
    """
    if target is None:
        return {"by_seed": {}, "seconds": None, "of_baseline": None}
    by_seed = {seed: seconds_to(runs, target, direction) for seed, runs in validations.items() if runs}
    others = {seed: seconds_to(runs, target, direction) for seed, runs in base.items()}
    shares = [s / others[seed] for seed, s in by_seed.items() if s is not None and others.get(seed)]
    return {
        "by_seed": by_seed,
        "seconds": interval_record([seconds for seconds in by_seed.values() if seconds is not None]),
        "of_baseline": interval_record(shares),
    }
