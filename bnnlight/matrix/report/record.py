"""The report of a matrix of runs as plain numbers, and the writing of all its files."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bnnlight.matrix.plan.plan import Plan
from bnnlight.matrix.plan.rows import Optimizer
from bnnlight.matrix.plan.units import Unit
from bnnlight.matrix.report.curve import draw_curve
from bnnlight.matrix.report.figure import draw
from bnnlight.matrix.report.page import as_json, as_markdown
from bnnlight.matrix.report.pairs import between_methods, between_optimizers, compare
from bnnlight.matrix.report.reach import Validations, reached, target_of
from bnnlight.matrix.report.statistics import interval_record
from bnnlight.matrix.runs.choice import Choice
from bnnlight.matrix.runs.evidence import evidence, mean_evidence, validations
from bnnlight.matrix.runs.files import write_bytes, write_text
from bnnlight.matrix.runs.run import Run
from bnnlight.matrix.runs.standing import Records, Standing, done_runs, figure

Record = dict[str, Any]


def as_record(plan: Plan, standings: Mapping[str, Standing], command: Sequence[str]) -> Record:
    """The report: ``methods`` (one a row, in the plan's order), and how to repeat it.

    Figures are of the test data, from the checkpoint best on held-out data, in ``unit``; intervals are Student's at
    95 %, differences from the baseline paired by seed, and their p-values adjusted by Holm over all methods that
    have one. With optimizers there is ``pairs``: differences between the optimizers of each method, and between methods
    with each optimizer, adjusted likewise, each kind for itself. Where the plan asks for it, ``reach`` is the figure to
    be reached, and each row has the seconds it takes as ``reach``; see :func:`~bnnlight.matrix.report.reach.reached`.

    Args:
        plan: of the matrix.
        standings: what there is of its runs.
        command: that repeats it.
    """
    unit = Unit(plan.metric)
    by_seed = {name: _by_seed(plan, standing.final, unit) for name, standing in standings.items()}
    differences = compare(by_seed, [(name, plan.baseline) for name in by_seed if name != plan.baseline])
    reach, reaches = _reach(plan, standings, unit)
    rows = []
    for name, standing in standings.items():
        method, records = standing.method, [record for _, record in done_runs(standing.final)]
        row = {
            "method": name,
            "group": method.group,
            "seeds_asked": list(method.seeds),
            "by_seed": by_seed[name],
            "test": interval_record(list(by_seed[name].values())),
            "difference": differences.get((name, plan.baseline)),
            "search": _search(standing.choice, unit),
            "rate_of": method.rate_of,
            "trained_parameters": next((r["trained"] for r in records if "trained" in r), None),
            "seconds": fmean(r["seconds"] for r in records) if records else None,
            "evidence": mean_evidence(_evidence(run, r) for run, r in done_runs(standing.final)),
        }
        # a page that is made again without an axis or a figure to reach is to be the same as before there were any
        row |= {"optimizer": method.optimizer.name, "base": method.base} if method.optimizer else {}
        rows.append(row | ({"reach": reaches[name]} if reach else {}))
    return {
        "title": plan.title,
        "note": plan.note,
        "config": " + ".join(map(str, plan.configs)),
        "metric": plan.metric,
        "metric_name": plan.metric_name,
        "direction": plan.direction,
        "unit": unit.name,
        "baseline": plan.baseline,
        "search": _asked_search(plan),
        **({"optimizers": [_optimizer(o, plan) for o in plan.optimizers]} if plan.optimizers else {}),
        **({"reach": reach} if reach else {}),
        "family": sum(difference["p"] is not None for difference in differences.values()),
        "methods": rows,
        **({"pairs": _pairs(plan, by_seed)} if plan.optimizers else {}),
        "curve": dataclasses.asdict(plan.curve) if plan.curve else None,
        "repeat": _repeat(standings, command),
    }


def _optimizer(optimizer: Optimizer, plan: Plan) -> Record:
    lender = {} if optimizer.rate_of == optimizer.name else {"rate_of": optimizer.rate_of}
    values: Any = None  # the search's own
    if optimizer.values and plan.search:
        values = {method: optimizer.values.get(method, plan.search.values) for method in optimizer.methods}
        lists = set(values.values())
        values = lists.pop() if len(lists) == 1 else values
    return {"name": optimizer.name, "values": values, **lender}


def _pairs(plan: Plan, by_seed: Mapping[str, Mapping[int, float]]) -> Record:
    kinds = {"optimizers": between_optimizers(plan), "methods": between_methods(plan)}
    return {
        kind: [{"row": row, "against": other, **numbers} for (row, other), numbers in compare(by_seed, pairs).items()]
        for kind, pairs in kinds.items()
    }


def _reach(plan: Plan, standings: Mapping[str, Standing], unit: Unit) -> tuple[Record | None, dict[str, Record]]:
    if plan.reach is None:
        return None, {}
    target = target_of(plan, standings)
    by_row = {
        name: {run.seed: _validations(plan, run, record) for run, record in done_runs(standing.final)}
        for name, standing in standings.items()
    }
    rows = {name: reached(runs, target, plan.direction, by_row[plan.baseline]) for name, runs in by_row.items()}
    return {"asked": plan.reach, "target": None if target is None else unit.scale * target}, rows


def write_report(record: Record, output: Path) -> None:
    """Writes OUTPUT.json, OUTPUT.md, OUTPUT.png and, with a curve, OUTPUT_curve.png, each whole or not at all."""
    write_text(_with(output, ".json"), as_json(record))
    write_text(_with(output, ".md"), as_markdown(record, picture=output.name))
    write_bytes(_with(output, ".png"), draw(record))
    if record["curve"]:
        write_bytes(_with(output, "_curve.png"), draw_curve(record))


def _with(output: Path, ending: str) -> Path:
    return output.with_name(output.name + ending)


def _evidence(run: Run, record: Record) -> Mapping[str, float]:
    return record["evidence"] if "evidence" in record else evidence(run.folder)


def _validations(plan: Plan, run: Run, record: Record) -> Validations:
    return record["validations"] if "validations" in record else validations(run.folder, plan.metric)


def _by_seed(plan: Plan, runs: Records, unit: Unit) -> dict[int, float]:
    return {run.seed: unit.scale * figure(run, r, plan.metric) for run, r in done_runs(runs)}


def _search(choice: Choice | None, unit: Unit) -> Record | None:
    if choice is None:
        return None
    record = dataclasses.asdict(choice)
    return record | {"means": {f"{value:g}": unit.scale * mean for value, mean in choice.means.items()}}


def _asked_search(plan: Plan) -> Record | None:
    if plan.search is None:
        return None
    return {key: value for key, value in dataclasses.asdict(plan.search).items() if key != "options"}


def _repeat(standings: Mapping[str, Standing], command: Sequence[str]) -> Record:
    records = [record for standing in standings.values() for _, record in standing.done]
    results = [record["results"] for record in records if "results" in record]
    machines = []
    for record in records:
        if record["machine"] not in machines:
            machines.append(record["machine"])
    return {
        "command": shlex.join(command),
        "versions": sorted({result["version"] for result in results}),
        "commits": sorted({result["commit"] for result in results if result["commit"]}),
        "torch": sorted({result["torch"] for result in results}),
        "machines": machines,
        "num_runs": len(records),
        "num_missing": sum(standing.num_missing for standing in standings.values()),
    }
