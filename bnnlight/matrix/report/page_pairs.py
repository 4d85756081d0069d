"""Differences between optimizers and between methods, as tables of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnnlight.matrix.plan.units import Unit

Record = dict[str, Any]

_TITLES = {
    "optimizers": "Between optimizers, the method being the same",
    "methods": "Between methods, the optimizer being the same",
}


def pair_tables(record: Record) -> list[str]:
    """A title, a table and what its correction is about, for each kind of pairs that has any.

    Args:
        record: of :func:`~bnnlight.matrix.report.record.as_record`; one without optimizers has none.
    """
    unit, parts = Unit(record["metric"]), []
    for kind, title in _TITLES.items():
        pairs = record.get("pairs", {}).get(kind)
        if not pairs:
            continue
        heads = ["row", "against", "difference", "by seed", "excludes zero", "p, Holm"]
        parts += [f"{title}:", markdown_table(heads, [_cells(pair, unit) for pair in pairs]), _family(pairs)]
    return parts


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a bar within a cell becomes a sign that looks like it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)


def _cells(pair: Record, unit: Unit) -> list[str]:
    by_seed = ", ".join(f"{seed}: {unit.number(value, '+')}" for seed, value in pair["by_seed"].items())
    excludes = {None: "", True: "yes", False: "no"}[pair["excludes_zero"]]
    p = f"{pair['p_holm']:.2g}" if pair["p_holm"] is not None else ""
    return [pair["row"], pair["against"], unit.interval(pair, "+"), by_seed, excludes, p]


def _family(pairs: list[Record]) -> str:
    tested = [pair for pair in pairs if pair["p_holm"] is not None]
    if not tested:
        return "No two of them have two seeds in common yet: the uncertainty of a difference is unknown."
    num, differ = len(tested), sum(pair["p_holm"] < 0.05 for pair in tested)
    comparisons = "comparison" if num == 1 else "comparisons"
    verb = "differ" if differ > 1 else "differs"
    return (
        f"Paired by seed, as above. “p, Holm” is corrected for the {num} {comparisons} of this table alone: "
        f"{differ or 'none'} of them {verb} at 5 %."
    )
