"""Writes the report of a matrix of runs as a page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from bnnlight.matrix.plan.units import Unit
from bnnlight.matrix.report.page_pairs import markdown_table, pair_tables
from bnnlight.matrix.report.page_reach import reach_cells, reach_heads, reach_text
from bnnlight.matrix.runs.evidence import COLUMNS
from bnnlight.matrix.runs.ledger import ENDING
from bnnlight.matrix.runs.screen import duration

Record = dict[str, Any]


def as_json(record: Record) -> str:
    """With figures as they are, to all digits; null for those that are not finite, which JSON has no word for."""
    return json.dumps(_finite(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_markdown(record: Record, picture: str) -> str:
    """A table with a row for each method, what is to be known to read it, and how to repeat it.

    Args:
        record: of :func:`~bnnlight.matrix.report.record.as_record`.
        picture: name of figure and ledger beside the page, without their endings.
    """
    unit, searched = Unit(record["metric"]), record["search"] is not None
    option = record["search"]["option"].rsplit(".", 1)[-1] if searched else ""
    heads = ["method", *([option] if searched else []), f"{record['metric_name']}, mean", "by seed"]
    heads += [f"against {record['baseline']}", "excludes zero", "p, Holm", *reach_heads(record)]
    heads += [*(["search"] if searched else []), "trained numbers", "time a run"]
    cells = []
    for heading, rows in groupby(record["methods"], key=_heading):
        if heading:
            cells.append([f"*{heading}*", *[""] * (len(heads) - 1)])
        cells += [_row(row, record, unit, searched) for row in rows]
    parts = [
        f"# {record['title']}",
        *([record["note"]] if record["note"] else []),
        _protocol(record),
        markdown_table(heads, cells),
        f"![{record['title']}]({picture}.png)",
        *([f"![{record['curve']['name']}]({picture}_curve.png)"] if record["curve"] else []),
        _family(record),
        *pair_tables(record),
        *reach_text(record),
        *_marks(record),
        *_evidence(record),
        _repeat(record["repeat"], f"{picture}{ENDING}"),
    ]
    return "\n\n".join(parts) + "\n"


def _row(row: Record, record: Record, unit: Unit, searched: bool) -> list[str]:
    name = f"**{row['method']}**" if row["method"] == record["baseline"] else row["method"]
    chosen = [_chosen(row)] if searched else []
    difference = row["difference"]
    against = unit.interval(difference, "+") if difference else ""
    excludes = {None: "", True: "yes", False: "no"}[difference["excludes_zero"] if difference else None]
    p = f"{difference['p_holm']:.2g}" if difference and difference["p_holm"] is not None else ""
    trained = f"{row['trained_parameters']:,}" if row["trained_parameters"] else ""
    took = duration(row["seconds"]) if row["seconds"] is not None else ""
    search = [_means(row, unit)] if searched else []
    figures = [_mean(row, unit), _by_seed(row, unit), against, excludes, p, *reach_cells(row, record)]
    return [name, *chosen, *figures, *search, trained, took]


def _heading(row: Record) -> str:
    return ", ".join(part for part in (row.get("optimizer"), row["group"]) if part)


def _chosen(row: Record) -> str:
    search = row["search"]
    if search["value"] is None:
        if search["num_done"] == search["num_runs"]:
            return "all diverged"
        return f"search: {search['num_done']} of {search['num_runs']} runs"
    marks = ["edge"] if search["edge"] else []
    marks += ["tie"] if search["tied"] else []
    marks += [f"of {row['rate_of']}"] if row["rate_of"] != row["method"] else []
    return f"{search['value']:g}" + (f" ({', '.join(marks)})" if marks else "")


def _mean(row: Record, unit: Unit) -> str:
    num_done, num_seeds = len(row["by_seed"]), len(row["seeds_asked"])
    missing = f"{num_done} of {num_seeds} seeds" if num_done < num_seeds else ""
    if row["test"] is None:
        return missing
    return unit.interval(row["test"]) + (f" ({missing})" if missing else "")


def _by_seed(row: Record, unit: Unit) -> str:
    return ", ".join(f"{seed}: {unit.number(value)}" for seed, value in row["by_seed"].items())


def _means(row: Record, unit: Unit) -> str:
    if row["rate_of"] != row["method"]:
        return ""
    search = row["search"]
    means = [f"{value}: {unit.number(mean)}" for value, mean in search["means"].items()]
    return ", ".join([*means, *(f"{value:g}: diverged" for value in search["diverged"])])


def _protocol(record: Record) -> str:
    better = "higher" if record["direction"] == "max" else "lower"
    of_unit = f" in {record['unit']}" if record["unit"] else ""
    text = (
        f"`{record['config']}`; {record['metric_name']}{of_unit} on the test data, of the checkpoint that is best on "
        f"held-out data; {better} is better. Means are given with Student's 95 % interval over the seeds; the "
        "difference is paired by seed, over the seeds that both have, with its 95 % interval."
    )
    return text + _searched(record)


def _searched(record: Record) -> str:
    search, optimizers = record["search"], record.get("optimizers", [])
    if not search:
        return ""
    own = [optimizer for optimizer in optimizers if not optimizer.get("rate_of")]
    values = [one for optimizer in own for one in _tried(optimizer, search["values"])]
    if all(len(tried) == 1 for tried, _ in values or [(search["values"], "")]):
        return ""
    each = "Each method has"
    tried = _values(search["values"])
    if optimizers:
        each = "Each method has with each optimizer"
        tried = "; ".join(f"{_values(numbers)} ({name})" for numbers, name in values)
    return (
        f" {each} the `{search['option']}` of {tried} that is best on held-out data in the mean over "
        f"{_seeds(search['seeds'])}, whose figures are under “search”; the search does not look at the test data."
        f"{_borrowed(optimizers)}"
    )


def _tried(optimizer: Mapping[str, Any], of_search: Sequence[float]) -> list[tuple[Sequence[float], str]]:
    """Lists of values, each with whose it is: the optimizer's, where most of its methods have that, or methods' own."""
    values, name = optimizer["values"] or of_search, optimizer["name"]
    if not isinstance(values, Mapping):
        return [(values, name)]
    owners: dict[tuple[float, ...], list[str]] = {}
    for method, numbers in values.items():
        owners.setdefault(tuple(numbers), []).append(method)
    most = max(owners, key=lambda numbers: len(owners[numbers]))
    return [(most, name), *((one, f"{' and '.join(owners[one])} with {name}") for one in owners if one != most)]


def _borrowed(optimizers: Sequence[Mapping[str, Any]]) -> str:
    borrowers: dict[str, list[str]] = {}
    for optimizer in optimizers:
        if optimizer.get("rate_of"):
            borrowers.setdefault(optimizer["rate_of"], []).append(optimizer["name"])
    return "".join(f" {lender}'s is taken with {'; '.join(names)}." for lender, names in borrowers.items())


def _values(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _family(record: Record) -> str:
    if not record["family"]:
        return "No method has two seeds in common with the baseline yet: the uncertainty of a difference is unknown."
    return (
        f"“Excludes zero” looks at each difference alone. The family has {record['family']} "
        f"comparison{'s' if record['family'] > 1 else ''} with {record['baseline']}; “p, Holm” is the paired t-test's "
        "p-value corrected for all of them: "
        f"{_survivors(record)} at 5 %."
    )


def _survivors(record: Record) -> str:
    tested = [row for row in record["methods"] if row["difference"] and row["difference"]["p_holm"] is not None]
    names = [row["method"] for row in tested if row["difference"]["p_holm"] < 0.05]
    return f"{'; '.join(names)} differ{'s' if len(names) == 1 else ''}" if names else "none differs"


def _marks(record: Record) -> list[str]:
    marks, own = [], [r for r in record["methods"] if r["search"] and r["search"]["value"] is not None]
    edges = [row["method"] for row in own if row["search"]["edge"]]
    if edges:
        marks.append(
            f"Edge: {'; '.join(edges)}: the chosen value is the smallest or largest that was tried, so a better one "
            "may lie beyond."
        )
    for row in own:
        if row["search"]["tied"] and row["rate_of"] == row["method"]:
            values = ", ".join(f"{value:g}" for value in row["search"]["tied"])
            marks.append(f"Tie: {row['method']}: {values} are equally good on held-out data; the smallest is taken.")
    for row in record["methods"]:
        seeds = [seed for seed, value in row["by_seed"].items() if not math.isfinite(value)]
        if seeds:
            marks.append(
                f"Not finite: {row['method']}, {_seeds(seeds)}: the method has no mean and no interval, and no "
                "difference is computed from such a figure."
            )
    return marks


def _evidence(record: Record) -> list[str]:
    rows = [row for row in record["methods"] if row["evidence"]]
    if not rows:
        return []
    shown = {
        "flips_first": lambda v: f"{100 * v:.1f} %",
        "flips_last": lambda v: f"{100 * v:.1f} %",
        "rank": lambda v: f"{v:.1f}",
        "cut": lambda v: f"{100 * v:.0f} %",
        "step_s": lambda v: f"{1000 * v:.0f} ms",
    }
    names = [name for name in COLUMNS if any(name in row["evidence"] for row in rows)]
    cells = []
    for row in rows:
        figures = row["evidence"]
        cells.append([row["method"], *(shown[name](figures[name]) if name in figures else "" for name in names)])
    text = (
        "What the callbacks logged, mean over the seeds. Flip rate: share of the binary weights whose sign differs "
        "from the look before, by default 100 steps. Effective rank: exp(entropy of the normalized singular values) "
        "of the latent weight's unfolding by output channels, at the end, mean over the layers. Inputs cut: share of "
        "the signs' inputs that get no gradient, at the end. Computing a step: without waiting for data."
    )
    return [text, markdown_table(["method", *(COLUMNS[name] for name in names)], cells)]


def _seeds(seeds: list[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _repeat(repeat: Record, ledger: str) -> str:
    if not repeat["num_runs"]:
        return f"To make it: `{repeat['command']}`; none of its runs is done yet."
    machines = "; ".join(_machine(machine) for machine in repeat["machines"])
    commits = ", ".join(re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", commit) for commit in repeat["commits"])
    changed = " (+: with changed files)" if "+" in commits else ""
    missing = f" {repeat['num_missing']} more are missing." if repeat["num_missing"] else ""
    return (
        f"To repeat it: `{repeat['command']}`; {repeat['num_runs']} runs, bnnlight {', '.join(repeat['versions'])}, "
        f"commit {commits or 'not known'}{changed}, torch {', '.join(repeat['torch'])}, on {machines}.{missing} "
        "The times are no benchmark: runs beside each other share the machine. "
        f"[{ledger}]({ledger}) has a line for each run."
    )


def _machine(machine: Record) -> str:
    name = f"{machine['gpu']}, " if machine["gpu"] else ""
    jobs = f"{machine['jobs']} runs at a time" if machine["jobs"] > 1 else "one run at a time"
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''} each"
    return f"{name}{machine['cpu_cores']} CPU cores ({machine['cpu']}), {jobs}, {threads}"
