"""Drops the options of an optimizer or a schedule that another one replaces.

jsonargparse keeps what a class that is replaced had under names that the new one has too, defaults as well: SOAP in
the place of AdamW would step with AdamW's betas. For a latent that is what sweeps over its rank want; of an optimizer
nobody expects it.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from bnnlight.console.known_names import find_object
from bnnlight.console.shipped_configs import is_file
from bnnlight.experiment.config.files import options_in, read_config

_SWAPPED = ("optimizer", "scheduler")
"""Options of a task."""

_WRAPPERS = ("init_args", "dict_kwargs")
"""Words in the path of an option that may be left out."""


def forget_replaced(config: Namespace, args: Sequence[str]) -> None:
    """Gives an optimizer or schedule that replaces another one its own defaults, where nothing else was asked of it.

    Asked of it is what stands beside its class or in a later config, and what the command line says by an option of
    its own, such as ``--model.optimizer.lr``, wherever on the line.

    Args:
        config: as jsonargparse has read it; changed in place.
        args: the command line that it was read from.

    Raises:
        jsonargparse.ArgumentError: an option that has no default is not named for the new class.
    """
    task = config.get("model")
    if not isinstance(task, Namespace) or not isinstance(task.get("init_args"), Namespace):
        return
    for name in _SWAPPED:
        entry = task.init_args.get(name)
        named = _named_options(args, name) if isinstance(entry, Namespace) and "class_path" in entry else None
        kind = _type_of(task.class_path, name) if named is not None else None
        if kind is not None:
            parser = ArgumentParser(exit_on_error=False)
            parser.add_argument(f"--model.{name}", type=kind)
            options = {key: value for key, value in vars(entry.get("init_args", Namespace())).items() if key in named}
            again = {"class_path": entry.class_path, "init_args": options, "dict_kwargs": entry.get("dict_kwargs", {})}
            task.init_args[name] = parser.parse_object({"model": {name: again}}).model[name]


def _named_options(args: Sequence[str], name: str) -> set[str] | None:
    """Names of the options that were given for the last class that is named; None where none is.

    The first one that is named has a class to replace too: the task's default.
    """
    current: str | None = None
    beside: set[str] = set()
    typed: set[str] = set()
    for path, value in _sources(args):
        if path[1:2] not in ([], [name]):  # another option of the task
            continue
        if len(path) > 2 and path[2] != "class_path":
            typed.add(path[2].removesuffix("+"))
            continue
        node = _descend(value, ["model", name][len(path) :]) if len(path) < 3 else {"class_path": value}
        node = {"class_path": node} if isinstance(node, str) else node
        if isinstance(node, Mapping):
            class_path = node.get("class_path")
            if isinstance(class_path, str):
                if not _is_same(current, class_path):
                    beside = set()
                current = class_path
            beside |= {key for wrapper in _WRAPPERS for key in node.get(wrapper) or {}}
            beside |= node.keys() - {"class_path", *_WRAPPERS}
    return None if current is None else beside | typed


def _sources(args: Sequence[str]) -> Iterator[tuple[list[str], Any]]:
    """Configs, as of the path [], and options, with their values as YAML reads them."""
    for option, text in options_in(args):
        path = [] if option == "config" else [part for part in option.split(".") if part not in _WRAPPERS]
        if path[:1] not in ([], ["model"]):
            continue
        if path in ([], ["model"]) and is_file(text):
            yield path, _read_whole(Path(text))
            continue
        try:
            yield path, yaml.safe_load(text)
        except yaml.YAMLError:
            yield path, text


def _read_whole(file: Path) -> dict[str, Any]:
    """A config with names such as ``model.optimizer`` taken apart, and with the model's own file where it names one."""
    content = _nested(read_config(file))
    model = content.get("model")
    if isinstance(model, str):  # by jsonargparse's rule: beside the config that names it
        files = [path for path in (file.parent / model, Path(model)) if is_file(path)]
        content["model"] = _nested(read_config(files[0])) if files else model
    return content


def _nested(value: Any) -> Any:
    """Mappings in which no name has a dot."""
    if not isinstance(value, Mapping):
        return value
    whole: dict[str, Any] = {}
    for name, inner in value.items():
        first, _, rest = str(name).partition(".")
        inner = _nested({rest: inner} if rest else inner)
        both = isinstance(inner, Mapping) and isinstance(whole.get(first), Mapping)
        whole[first] = _merged(whole[first], inner) if both else inner
    return whole


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    whole = {**one, **other}
    for name in one.keys() & other.keys():
        if isinstance(one[name], Mapping) and isinstance(other[name], Mapping):
            whole[name] = _merged(one[name], other[name])
    return whole


def _descend(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if not isinstance(value, Mapping):
            return None
        inner = value.get("init_args")
        value = value.get(part, inner.get(part) if isinstance(inner, Mapping) else None)
    return value


def _is_same(one: str | None, other: str) -> bool:
    if one is None or one == other:
        return one == other
    if "." not in one or "." not in other:  # jsonargparse finds classes by their own names too
        return one.rpartition(".")[2] == other.rpartition(".")[2]
    target = find_object(one)
    return target is not None and target is find_object(other)


def _type_of(task: str, name: str) -> Any:
    """The type of a task's option, or of one that it hands on as ``**kwargs``; None where it is not told."""
    target = find_object(task)
    for part in target.__mro__ if isinstance(target, type) else [target]:
        try:
            hints = typing.get_type_hints(part.__init__ if isinstance(part, type) else part)
        except (TypeError, NameError):
            continue
        if name in hints:
            return hints[name]
    return None
