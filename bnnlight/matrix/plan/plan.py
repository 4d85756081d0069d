"""`Plan`: what a matrix of runs compares, read from its YAML."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnnlight.matrix.plan.axis import read_optimizers, with_optimizers
from bnnlight.matrix.plan.reading import (
    Options,
    file_of,
    files_of,
    load,
    names_of,
    one_of,
    options_of,
    section,
    seeds_of,
    short,
    values_of,
)
from bnnlight.matrix.plan.rows import Method, Optimizer, Search
from bnnlight.matrix.plan.units import Unit

_PAGE = ("title", "note", "metric_name", "curve", "reach")
_KEYS = (*_PAGE, "config", "options", "metric", "direction", "baseline", "seeds", "search", "optimizers")


@dataclass(frozen=True)
class Curve:
    """Methods that differ in one number.

    Attributes:
        name: of the number, with its unit.
        values: method → its number, above 0.
    """

    name: str
    values: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """A matrix of runs.

    Attributes:
        path: of the YAML.
        title: of the page.
        configs: the experiment's YAML, and overlays in front of the methods'.
        metric: name behind ``val/`` and ``test/``.
        metric_name: for the table.
        direction: ``max`` or ``min``: which figure is the better one.
        baseline: the row that differences are taken from.
        methods: the rows by name: each method, or each pair of a method and an optimizer.
        options: of all runs.
        search: None where all methods keep what their configs say.
        note: paragraphs for the page.
        curve: rows that are drawn against a number too, or None.
        optimizers: of the plan, none where it has no such axis.
        reach: figure of which it is told how soon runs reach it, in the page's unit; ``baseline`` for the mean of the
            baseline's last ones on held-out data; None where that is not asked.
    """

    path: Path
    title: str
    configs: tuple[Path, ...]
    metric: str
    metric_name: str
    direction: str
    baseline: str
    methods: dict[str, Method]
    options: Options = field(default_factory=dict)
    search: Search | None = None
    note: str = ""
    curve: Curve | None = None
    optimizers: tuple[Optimizer, ...] = ()
    reach: float | str | None = None


def read_plan(path: Path) -> Plan:
    """Reads a matrix of runs.

    Args:
        path: of the YAML; paths within are relative to it.

    Raises:
        OSError: it, or a config that it names, is not there.
        ValueError: a key or value in it is wrong; the message is one line that names the file and the key.
    """
    content = load(path)
    try:
        return _plan(path, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _plan(path: Path, content: Any) -> Plan:
    top = section(content, "", (*_KEYS, "methods"), ("config", "metric", "baseline", "seeds", "methods"))
    seeds = seeds_of(top["seeds"], "seeds")
    search = _search(top["search"]) if top.get("search") is not None else None
    sections = {str(name): value or {} for name, value in section(top["methods"], "methods").items()}
    direction = top.get("direction", "max")
    if direction not in ("max", "min"):
        raise ValueError(f"direction is {direction!r}: choose max or min")
    rows = {name: _method(name, value, sections, path, seeds, search) for name, value in sections.items()}
    optimizers = read_optimizers(top["optimizers"], list(rows), path, search) if "optimizers" in top else ()
    own = {name: _own_optimizers(name, value, optimizers) for name, value in sections.items() if "optimizers" in value}
    if optimizers:
        rows = with_optimizers(rows, optimizers, own)
    return Plan(
        path=path,
        title=str(top.get("title", path.stem)),
        configs=_configs(top["config"], path),
        metric=str(top["metric"]),
        metric_name=str(top.get("metric_name", top["metric"])),
        direction=direction,
        baseline=one_of(str(top["baseline"]), rows, "baseline", "rows" if optimizers else "methods"),
        methods=rows,
        options=options_of(top.get("options"), "options"),
        search=search,
        note=str(top.get("note") or "").strip(),
        curve=_curve(top["curve"], rows) if top.get("curve") is not None else None,
        optimizers=optimizers,
        reach=_reach(top["reach"], str(top["metric"])) if top.get("reach") is not None else None,
    )


def _configs(content: Any, path: Path) -> tuple[Path, ...]:
    if content == []:
        raise ValueError("config is empty: give the experiment's file")
    return tuple(file_of(name, "config", path) for name in (content if isinstance(content, list) else [content]))


def _method(
    name: str, content: Any, methods: Mapping[str, Any], path: Path, seeds: tuple[int, ...], search: Search | None
) -> Method:
    where = f"methods, {name}"
    own = section(content, where, ("configs", "options", "seeds", "rate_of", "group", "optimizers"))
    configs = files_of(own.get("configs"), where, path)
    options = options_of(own.get("options"), where)
    if search and short(search.option) in map(short, options):
        raise ValueError(f"{where}: sets {search.option}, which the search chooses")
    rate_of = one_of(str(own.get("rate_of", name)), methods, f"{where}: rate_of", "methods")
    if rate_of != name and (methods[rate_of] or {}).get("rate_of", rate_of) != rate_of:
        raise ValueError(f"{where}: rate_of is {rate_of!r}, which has no search of its own either")
    return Method(
        name=name,
        base=name,
        configs=configs,
        options=options,
        seeds=seeds_of(own["seeds"], f"{where}: seeds") if "seeds" in own else seeds,
        rate_of=rate_of,
        group=str(own.get("group") or ""),
        search=search,
    )


def _own_optimizers(name: str, content: Mapping[str, Any], optimizers: tuple[Optimizer, ...]) -> tuple[str, ...]:
    if not optimizers:
        raise ValueError(f"methods, {name}: names optimizers, and the plan has none: add a section optimizers")
    names = [optimizer.name for optimizer in optimizers]
    return names_of(content["optimizers"], names, f"methods, {name}: optimizers", "optimizers")


def _search(content: Any) -> Search:
    content = section(content, "search", ("option", "values", "seeds", "options"), ("option", "values", "seeds"))
    option = str(content["option"])
    values, seeds = values_of(content["values"], "search", option), seeds_of(content["seeds"], "search: seeds")
    return Search(option, values, seeds, options_of(content.get("options"), "search"))


def _curve(content: Any, methods: Collection[str]) -> Curve:
    content = section(content, "curve", ("name", "values"), ("name", "values"))
    values = section(content["values"], "curve: values")
    for name, value in values.items():
        one_of(str(name), methods, "curve: values", "methods")
        if not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"curve: values, {name}: {value!r}: give a number above 0")
    return Curve(str(content["name"]), {str(name): float(value) for name, value in values.items()})


def _reach(content: Any, metric: str) -> float | str:
    if content == "baseline":
        return content
    in_percent = Unit(metric).name == "%"
    is_number = isinstance(content, int | float) and not isinstance(content, bool) and math.isfinite(content)
    # 0.7 would be a mistake for 70: nobody asks when a run reaches less than one percent
    if not is_number or (in_percent and not 1 < content <= 100):
        what = "a number in %, from 1 to 100" if in_percent else "a finite number"
        raise ValueError(f"reach is {content!r}: give {what}, or baseline")
    return float(content)
