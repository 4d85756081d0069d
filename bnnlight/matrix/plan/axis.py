"""Optimizers as an axis of a matrix: each pair of a method and an optimizer is a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnnlight.matrix.plan.reading import (
    Options,
    files_of,
    names_of,
    one_of,
    options_of,
    section,
    seeds_of,
    short,
    values_of,
)
from bnnlight.matrix.plan.rows import Method, Optimizer, Search

_KEYS = ("configs", "options", "values", "methods", "seeds", "rate_of")


def read_optimizers(content: Any, methods: Sequence[str], path: Path, search: Search | None) -> tuple[Optimizer, ...]:
    """Reads the section ``optimizers`` of a plan.

    Args:
        content: of the section: name → configs, options, values, methods, seeds, rate_of.
        methods: of the plan, by name.
        path: of the plan's YAML, which other paths are relative to.
        search: of the plan, or None.

    Raises:
        ValueError: a key or value is wrong; the message is one line that names it.
    """
    sections = section(content, "optimizers")
    optimizers = [_optimizer(name, value, methods, path, search, list(sections)) for name, value in sections.items()]
    for optimizer in optimizers:
        lender = next(other for other in optimizers if other.name == optimizer.rate_of)
        if lender.rate_of != lender.name:
            raise ValueError(
                f"optimizers, {optimizer.name}: rate_of is {lender.name!r}, which has no search of its own either"
            )
    own = [optimizer.name for optimizer in optimizers if optimizer.is_own]
    if len(own) > 1:
        raise ValueError(
            f"optimizers: {own[0]!r} and {own[1]!r} have neither configs nor options, so both are the plan's own: say "
            "what one of them changes"
        )
    return tuple(optimizers)


def _optimizer(
    name: Any, content: Any, methods: Sequence[str], path: Path, search: Search | None, others: Sequence[str]
) -> Optimizer:
    where = f"optimizers, {name}"
    if not isinstance(name, str) or not any(map(str.isalnum, name)):
        raise ValueError(f"{where}: no folder can be named after it: give a name with letters or digits, in quotes")
    if name in methods:
        raise ValueError(f"{where}: a method has that name too: rename one")
    content = section(content or {}, where, _KEYS)
    options = options_of(content.get("options"), where)
    values = content.get("values")
    run = names_of(content["methods"], methods, f"{where}: methods", "methods") if "methods" in content else methods
    if search is None and values is not None:
        raise ValueError(f"{where}: values is given, but nothing is searched: add a search, or remove it")
    rate_of = one_of(str(content.get("rate_of", name)), others, f"{where}: rate_of", "optimizers")
    if rate_of != name and values is not None:
        raise ValueError(f"{where}: has values and rate_of, so both choose {search.option}: remove one")
    if search and short(search.option) in map(short, options):
        raise ValueError(f"{where}: sets {search.option}, which the search chooses: give it as values")
    return Optimizer(
        name=name,
        configs=files_of(content.get("configs"), where, path),
        options=options,
        values=_values(values, run, where, search.option) if search and values is not None else {},
        methods=tuple(run),
        seeds=seeds_of(content["seeds"], f"{where}: seeds") if "seeds" in content else None,
        rate_of=rate_of,
    )


def _values(content: Any, methods: Sequence[str], where: str, option: str) -> dict[str, tuple[float, ...]]:
    """Method → the values that are tried: of one list for all, or of a list for each that is named."""
    if content == {}:
        raise ValueError(f"{where}: values is empty: give a list of numbers, or one for each of some methods")
    if not isinstance(content, dict):
        return dict.fromkeys(methods, values_of(content, where, option))
    return {
        one_of(str(name), methods, f"{where}: values", "methods"): values_of(one, f"{where}: values, {name}", option)
        for name, one in content.items()
    }


def with_optimizers(
    methods: Mapping[str, Method], optimizers: Sequence[Optimizer], chosen: Mapping[str, Sequence[str]]
) -> dict[str, Method]:
    """The rows of a plan: each optimizer with each method that is run with it, optimizer by optimizer.

    Args:
        methods: of the plan, by name.
        optimizers: of the plan.
        chosen: method → the optimizers that it names; all of them where it names none.

    Raises:
        ValueError: two rows have one name, a method or an optimizer has no row, or a row takes the rate of one that is
            not there.
    """
    rows: dict[str, Method] = {}
    by_name = {optimizer.name: optimizer for optimizer in optimizers}
    for optimizer in optimizers:
        for name, method in methods.items():
            if name not in optimizer.methods or optimizer.name not in chosen.get(name, [optimizer.name]):
                continue
            row = optimizer.row(name)
            if row in rows:
                raise ValueError(f"methods: {row!r} is the name of two rows, with optimizers: rename one")
            lender, source = methods[method.rate_of], by_name[optimizer.rate_of]
            if lender.name not in source.methods or source.name not in chosen.get(lender.name, [source.name]):
                raise ValueError(
                    f"methods, {name}: its rate with {optimizer.name!r} is that of {lender.name!r}, which is not run "
                    f"with {source.name!r}: run it with that too, or remove rate_of"
                )
            search = method.search
            if search and lender.name in source.values:
                search = dataclasses.replace(search, values=source.values[lender.name])
            rows[row] = dataclasses.replace(
                method,
                name=row,
                rate_of=source.row(method.rate_of),
                search=search,
                optimizer=optimizer,
                seeds=optimizer.seeds or method.seeds,
            )
    _check_all_are_run(methods, optimizers, rows)
    for optimizer in optimizers:
        for name in optimizer.values:
            row = rows.get(optimizer.row(name))
            # of one list for all, those count that search
            if row is None or row.rate_of != row.name:
                if len(set(optimizer.values.values())) == 1 and set(optimizer.values) == set(optimizer.methods):
                    continue
                why = "is not run with it" if row is None else f"takes the rate of {methods[name].rate_of!r}"
                raise ValueError(f"optimizers, {optimizer.name}: values names {name!r}, which {why}: remove it there")
    return rows


def _check_all_are_run(
    methods: Mapping[str, Method], optimizers: Sequence[Optimizer], rows: Mapping[str, Method]
) -> None:
    for kind, names, run in (
        ("methods", list(methods), {row.base for row in rows.values()}),
        ("optimizers", [o.name for o in optimizers], {row.optimizer.name for row in rows.values() if row.optimizer}),
    ):
        for name in names:
            if name not in run:
                other = "optimizer" if kind == "methods" else "method"
                raise ValueError(f"{kind}, {name}: no {other} is left for it: look at the lists of both, or remove it")


def in_place(options: Options, optimizer: Optimizer | None, searched: str | None) -> Options:
    """Options of a row: the optimizer's behind the others and in place of those of the same name.

    What belongs to an option that is replaced, such as ``model.optimizer.momentum`` to ``model.optimizer``, is left
    out with it.

    Args:
        options: of plan and method.
        optimizer: of the row, or None.
        searched: option that is chosen for each row, or None; it is left out where an optimizer comes behind it.
    """
    if optimizer is None or optimizer.is_own:
        return options
    replaced = {short(name) for name in optimizer.options} & {short(name) for name in options}
    replaced |= {short(searched)} if searched else set()
    remaining = {
        name: value
        for name, value in options.items()
        if not any(f"{short(name)}.".startswith(f"{other}.") for other in replaced)
    }
    return remaining | optimizer.options
