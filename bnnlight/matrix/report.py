"""What came out of a matrix of runs, as plain numbers."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bnnlight.matrix.choice import Choice
from bnnlight.matrix.curve import draw_curve
from bnnlight.matrix.evidence import evidence, mean_evidence
from bnnlight.matrix.figure import draw
from bnnlight.matrix.files import write_bytes, write_text
from bnnlight.matrix.page import as_json, as_markdown
from bnnlight.matrix.plan import Plan
from bnnlight.matrix.runs import Run, is_done
from bnnlight.matrix.standing import Found, Standing, figure
from bnnlight.matrix.statistics import Difference, holm, mean_interval, paired_difference
from bnnlight.matrix.units import Unit

Record = dict[str, Any]


def as_record(plan: Plan, standings: Mapping[str, Standing], command: Sequence[str]) -> Record:
    """The report: ``methods`` (one a row, in the plan's order), and how to repeat it.

    Figures are of the test data, from the checkpoint best on held-out data, in ``unit``; intervals are Student's at
    95 %, differences from the baseline paired by seed, and their p-values adjusted by Holm over all methods that
    have one.

    Args:
        plan: of the matrix.
        standings: what there is of its runs.
        command: that repeats it.
    """
    unit = Unit(plan.metric)
    by_seed = {name: _by_seed(plan, standing.final, unit) for name, standing in standings.items()}
    base = by_seed[plan.baseline]
    differences = {name: paired_difference(of, base) for name, of in by_seed.items() if name != plan.baseline}
    tested = {name: found.p for name, found in differences.items() if found and found.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    rows = []
    for name, standing in standings.items():
        records = _done(standing.final)
        rows.append(
            {
                "method": name,
                "group": standing.method.group,
                "seeds_asked": list(standing.method.seeds),
                "by_seed": by_seed[name],
                "test": _interval(list(by_seed[name].values())),
                "difference": _difference(differences.get(name), adjusted.get(name)),
                "search": _search(standing.choice, unit),
                "rate_of": standing.method.rate_of,
                "trained_parameters": next((r["trained"] for r in records if "trained" in r), None),
                "seconds": fmean(r["seconds"] for r in records) if records else None,
                "evidence": mean_evidence(_seen(run, r) for run, r in standing.final if is_done(r)),
            }
        )
    return {
        "title": plan.title,
        "note": plan.note,
        "config": str(plan.config),
        "metric": plan.metric,
        "metric_name": plan.metric_name,
        "direction": plan.direction,
        "unit": unit.name,
        "baseline": plan.baseline,
        "search": _asked_search(plan),
        "family": len(tested),
        "methods": rows,
        "curve": dataclasses.asdict(plan.curve) if plan.curve else None,
        "repeat": _repeat(standings, command),
    }


def write_report(record: Record, output: Path) -> None:
    """Writes OUTPUT.json, OUTPUT.md, OUTPUT.png and, with a curve, OUTPUT_curve.png, each whole or not at all."""
    write_text(_with(output, ".json"), as_json(record))
    write_text(_with(output, ".md"), as_markdown(record, picture=output.name))
    write_bytes(_with(output, ".png"), draw(record))
    if record["curve"]:
        write_bytes(_with(output, "_curve.png"), draw_curve(record))


def _with(output: Path, ending: str) -> Path:
    return output.with_name(output.name + ending)


def _seen(run: Run, record: Record) -> Mapping[str, float]:
    return record["evidence"] if "evidence" in record else evidence(run.folder)


def _done(found: Found) -> list[Record]:
    return [record for _, record in found if is_done(record)]


def _by_seed(plan: Plan, found: Found, unit: Unit) -> dict[int, float]:
    return {run.seed: unit.scale * figure(run, r, plan.metric) for run, r in found if is_done(r)}


def _interval(values: Sequence[float]) -> Record | None:
    if not values:
        return None
    found = mean_interval(values)
    return {"mean": found.mean, "half_interval": found.half}


def _difference(found: Difference | None, adjusted: float | None) -> Record | None:
    if found is None:
        return None
    return {
        "by_seed": found.by_seed,
        "mean": found.mean,
        "half_interval": found.half,
        "excludes_zero": found.excludes_zero,
        "p": found.p,
        "p_holm": adjusted,
    }


def _search(choice: Choice | None, unit: Unit) -> Record | None:
    if choice is None:
        return None
    found = dataclasses.asdict(choice)
    return found | {"means": {f"{value:g}": unit.scale * mean for value, mean in choice.means.items()}}


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
