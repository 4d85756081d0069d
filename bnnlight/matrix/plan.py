"""What is compared on what: the YAML of a matrix of runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

Options = dict[str, Any]
"""Options of `bnnlight fit`, by name without dashes."""

OWN_OPTIONS = ("run_dir", "resume", "seed_everything", "test_after_fit")
"""Options that every run is given by the matrix itself."""

_PAGE = ("title", "note", "metric_name", "curve")
_KEYS = (*_PAGE, "config", "options", "metric", "direction", "baseline", "seeds", "search")


@dataclass(frozen=True)
class Search:
    """Values of one option, of which each method takes its best.

    Attributes:
        option: of `bnnlight fit`, such as ``model.optimizer.lr``.
        values: that are tried, in rising order.
        seeds: of the search runs.
        options: of the search runs alone, in front of the matrix's own.
    """

    option: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    options: Options


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        name: of the row.
        configs: overlays, each a further ``--config``.
        options: of all its runs.
        seeds: of its final runs.
        rate_of: the method whose search chooses its value; its own name unless it takes another one's.
        group: heading under which it stands with those beside it, or "".
    """

    name: str
    configs: tuple[Path, ...]
    options: Options
    seeds: tuple[int, ...]
    rate_of: str
    group: str = ""


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
        config: the experiment's YAML.
        metric: name behind ``val/`` and ``test/``.
        metric_name: for the table.
        direction: ``max`` or ``min``: which figure is the better one.
        baseline: the method that differences are taken from.
        methods: by name.
        options: of all runs.
        search: None where all methods keep what their configs say.
        note: paragraphs for the page.
        curve: methods that are drawn against a number too, or None.
    """

    path: Path
    title: str
    config: Path
    metric: str
    metric_name: str
    direction: str
    baseline: str
    methods: dict[str, Method]
    options: Options = field(default_factory=dict)
    search: Search | None = None
    note: str = ""
    curve: Curve | None = None


def read_plan(path: Path) -> Plan:
    """Reads a matrix of runs.

    Args:
        path: of the YAML; paths within are relative to it.

    Raises:
        OSError: it, or a config that it names, is not there.
        ValueError: a key or value in it is wrong; the message is one line that names the file and the key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = str(error).replace('in "<unicode string>", ', "at ")
        raise ValueError(f"{path}: not valid YAML: {' '.join(where.split())}") from None
    try:
        return _plan(path, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _plan(path: Path, content: Any) -> Plan:
    top = _section(content, "", (*_KEYS, "methods"), ("config", "metric", "baseline", "seeds", "methods"))
    seeds = _seeds(top["seeds"], "seeds")
    search = _search(top["search"]) if top.get("search") is not None else None
    methods = {str(name): value or {} for name, value in _section(top["methods"], "methods").items()}
    direction = top.get("direction", "max")
    if direction not in ("max", "min"):
        raise ValueError(f"direction is {direction!r}: choose max or min")
    baseline = one_of(str(top["baseline"]), methods, "baseline", "methods")
    return Plan(
        path=path,
        title=str(top.get("title", path.stem)),
        config=_file(top["config"], "config", path),
        metric=str(top["metric"]),
        metric_name=str(top.get("metric_name", top["metric"])),
        direction=direction,
        baseline=baseline,
        methods={name: _method(name, value, methods, path, seeds, search) for name, value in methods.items()},
        options=_options(top.get("options"), "options"),
        search=search,
        note=str(top.get("note") or "").strip(),
        curve=_curve(top["curve"], methods) if top.get("curve") is not None else None,
    )


def _method(
    name: str, content: Any, methods: Mapping[str, Any], path: Path, seeds: tuple[int, ...], search: Search | None
) -> Method:
    where = f"methods, {name}"
    own = _section(content, where, ("configs", "options", "seeds", "rate_of", "group"))
    configs = own.get("configs") or []
    if not isinstance(configs, list):
        raise ValueError(f"{where}: configs is {configs!r}: give a list of files")
    options = _options(own.get("options"), where)
    if search and short(search.option) in map(short, options):
        raise ValueError(f"{where}: sets {search.option}, which the search chooses")
    rate_of = one_of(str(own.get("rate_of", name)), methods, f"{where}: rate_of", "methods")
    if rate_of != name and (methods[rate_of] or {}).get("rate_of", rate_of) != rate_of:
        raise ValueError(f"{where}: rate_of is {rate_of!r}, which has no search of its own either")
    return Method(
        name=name,
        configs=tuple(_file(config, f"{where}: configs", path) for config in configs),
        options=options,
        seeds=_seeds(own["seeds"], f"{where}: seeds") if "seeds" in own else seeds,
        rate_of=rate_of,
        group=str(own.get("group") or ""),
    )


def _search(content: Any) -> Search:
    known = _section(content, "search", ("option", "values", "seeds", "options"), ("option", "values", "seeds"))
    try:
        # what YAML 1.1 takes for a text, such as 1e-3, is a number here
        values = sorted({float(value) for value in known["values"]})
    except (TypeError, ValueError):
        raise ValueError(f"search: values is {known['values']!r}: give a list of numbers") from None
    if not values:
        raise ValueError("search: values is empty: give at least one")
    seeds, options = _seeds(known["seeds"], "search: seeds"), _options(known.get("options"), "search")
    return Search(str(known["option"]), tuple(values), seeds, options)


def _curve(content: Any, methods: Collection[str]) -> Curve:
    known = _section(content, "curve", ("name", "values"), ("name", "values"))
    values = _section(known["values"], "curve: values")
    for name, value in values.items():
        one_of(str(name), methods, "curve: values", "methods")
        if not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"curve: values, {name}: {value!r}: give a number above 0")
    return Curve(str(known["name"]), {str(name): float(value) for name, value in values.items()})


def _section(content: Any, where: str, known: Collection[str] = (), required: Collection[str] = ()) -> dict[str, Any]:
    prefix = f"{where}: " if where else ""
    if not isinstance(content, dict) or (not content and not known):
        raise ValueError(f"{prefix}{'empty' if not content else repr(content)}: give names with values")
    for key in content:
        if known and key not in known:
            raise ValueError(f"{prefix}no key {key!r}{nearest(str(key), known)}")
    for key in required:
        if content.get(key) is None:
            raise ValueError(f"{prefix}no {key} is given")
    return content


def _options(content: Any, where: str) -> Options:
    options = {} if content is None else content
    if not isinstance(options, dict):
        raise ValueError(f"{where}: options is {options!r}: give names of `bnnlight fit` with values")
    options = {str(key).removeprefix("--"): value for key, value in options.items()}
    for key in OWN_OPTIONS:
        if key in options:
            raise ValueError(f"{where}: option {key} is given to every run by the matrix itself")
    return options


def _seeds(content: Any, where: str) -> tuple[int, ...]:
    whole = isinstance(content, list) and all(isinstance(seed, int) and seed >= 0 for seed in content)
    if not whole or not content or len(set(content)) < len(content):
        raise ValueError(f"{where}: {content!r}: give a list of different whole numbers, at least one")
    return tuple(content)


def _file(name: Any, where: str, path: Path) -> Path:
    file = Path(os.path.normpath(path.parent / str(name)))
    if not file.is_file():
        raise ValueError(f"{where}: no such file: {file}")
    return file


def one_of(name: str, known: Collection[str], where: str, what: str) -> str:
    """The name, if it is known.

    Raises:
        ValueError: it is not; with the nearest that is.
    """
    if name not in known:
        raise ValueError(f"{where}: {name!r} is not among the {what}{nearest(name, known)}")
    return name


def nearest(name: str, known: Collection[str]) -> str:
    """ ": did you mean …", or what there is."""
    near = get_close_matches(name, known, 1)
    return f": did you mean {near[0]!r}?" if near else f": choose from {', '.join(map(repr, known))}"


def short(option: str) -> str:
    """An option's name as it may be abbreviated on the command line, without ``init_args``."""
    return ".".join(part for part in option.split(".") if part != "init_args")
