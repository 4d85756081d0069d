"""Parts of a plan's YAML: sections, options, seeds, numbers and names, each checked as it is read."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from bnnlight.console.shipped_configs import shipped_config

Options = dict[str, Any]
"""Options of `bnnlight fit`, by name without dashes."""

OWN_OPTIONS = ("run_dir", "resume", "seed_everything", "test_after_fit")
"""Options that every run is given by the matrix itself."""

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Refuses a name that stands twice in one section: of the two YAML would silently keep the later one."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in names:
                    raise ValueError(f"line {key.start_mark.line + 1}: {key.value!r} appears twice: rename one")
                names.add(key.value)
        return node


def load(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        OSError: it is not there.
        ValueError: it is not valid YAML, or a name stands twice in one section; the message names the file and line.
    """
    try:
        # the loader is a safe one
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = str(error).replace('in "<unicode string>", ', "at ")
        raise ValueError(f"{path}: not valid YAML: {' '.join(where.split())}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def section(content: Any, where: str, keys: Collection[str] = (), required: Collection[str] = ()) -> dict[str, Any]:
    """A mapping, as it is.

    Args:
        content: of the section.
        where: it stands, for the message.
        keys: its keys; any if none are given, but at least one.
        required: keys that must have a value.

    Raises:
        ValueError: it is not a mapping, or has other keys.
    """
    prefix = f"{where}: " if where else ""
    if not isinstance(content, dict) or (not content and not keys):
        raise ValueError(f"{prefix}{'empty' if not content else repr(content)}: give names with values")
    for key in content:
        if keys and key not in keys:
            raise ValueError(f"{prefix}no key {key!r}{nearest(str(key), keys)}")
    for key in required:
        if content.get(key) is None:
            raise ValueError(f"{prefix}no {key} is given")
    return content


def options_of(content: Any, where: str) -> Options:
    """Options of `bnnlight fit`, without dashes.

    Raises:
        ValueError: they are no mapping, or one is given by the matrix itself.
    """
    options = {} if content is None else content
    if not isinstance(options, dict):
        raise ValueError(f"{where}: options is {options!r}: give names of `bnnlight fit` with values")
    options = {str(key).removeprefix("--"): value for key, value in options.items()}
    for key in OWN_OPTIONS:
        if key in options:
            raise ValueError(f"{where}: option {key} is given to every run by the matrix itself")
    return options


def seeds_of(content: Any, where: str) -> tuple[int, ...]:
    """Different whole numbers, at least one.

    Raises:
        ValueError: they are something else.
    """
    whole = isinstance(content, list) and all(isinstance(seed, int) and seed >= 0 for seed in content)
    if not whole or not content or len(set(content)) < len(content):
        raise ValueError(f"{where}: {content!r}: give a list of different whole numbers, at least one")
    return tuple(content)


def _no_bool(value: Any) -> Any:
    """The value; None where it is true or false, which Python takes for numbers."""
    return None if isinstance(value, bool) else value


def values_of(content: Any, where: str, option: str) -> tuple[float, ...]:
    """Values of a searched option, in rising order.

    Args:
        content: a list of finite numbers; those of a learning rate are above 0.
        where: the list stands, for the message.
        option: that is searched.

    Raises:
        ValueError: it is something else.
    """
    try:
        # what YAML 1.1 takes for a text, such as 1e-3, is a number here
        values = sorted({float(_no_bool(value)) for value in (content if isinstance(content, list) else [None])})
    except (TypeError, ValueError):
        raise ValueError(f"{where}: values is {content!r}: give a list of numbers") from None
    if not values:
        raise ValueError(f"{where}: values is empty: give at least one")
    is_rate = option.rsplit(".", 1)[-1] == "lr"
    for value in values:
        if not math.isfinite(value) or (is_rate and value <= 0):
            raise ValueError(f"{where}: values has {value:g}: give {'rates above 0' if is_rate else 'finite numbers'}")
    return tuple(values)


def files_of(content: Any, where: str, path: Path) -> tuple[Path, ...]:
    """Overlays of a method or an optimizer.

    Raises:
        ValueError: they are no list, or one is not there.
    """
    configs = content or []
    if not isinstance(configs, list):
        raise ValueError(f"{where}: configs is {configs!r}: give a list of files")
    return tuple(file_of(config, f"{where}: configs", path) for config in configs)


def file_of(name: Any, where: str, path: Path) -> Path:
    """A file, relative to the plan's own; or, where none is there, the config of that name that comes with the package.

    Raises:
        ValueError: it is not there.
    """
    file = Path(os.path.normpath(path.parent / str(name)))
    file = file if file.is_file() else shipped_config(str(name))
    if file is None:
        raise ValueError(f"{where}: no such file: {os.path.normpath(path.parent / str(name))}")
    return file


def names_of(content: Any, choices: Collection[str], where: str, what: str) -> tuple[str, ...]:
    """Different names that are known, at least one.

    Raises:
        ValueError: one is not known or stands there twice, or there is none.
    """
    if not isinstance(content, list) or not content:
        raise ValueError(f"{where} is {content!r}: give a list of names, at least one")
    names = tuple(one_of(str(name), choices, where, what) for name in content)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where}: {name!r} appears twice: remove one")
    return names


def one_of(name: str, choices: Collection[str], where: str, what: str) -> str:
    """The name, if it is known.

    Raises:
        ValueError: it is not; with the nearest that is.
    """
    if name not in choices:
        raise ValueError(f"{where}: {name!r} is not among the {what}{nearest(name, choices)}")
    return name


def nearest(name: str, choices: Collection[str]) -> str:
    """ ": did you mean …", or what there is."""
    near = get_close_matches(name, choices, 1)
    return f": did you mean {near[0]!r}?" if near else f": choose from {', '.join(map(repr, choices))}"


def short(option: str) -> str:
    """An option's name as it may be abbreviated on the command line, without ``init_args``."""
    return ".".join(part for part in option.split(".") if part != "init_args")
