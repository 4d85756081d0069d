"""Reads ``None`` as YAML's ``null``, on the command line and in configs, as a W&B sweep writes it."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader, set_loader

from bnnlight.console.known_names import find_object


def read_none_as_null() -> None:
    """Lets jsonargparse read the word ``None`` as it reads ``null``. A file of that name is ``./None``."""
    read = get_loader("yaml")
    if getattr(read, "reads_none", False):
        return

    def load(text: str) -> Any:
        return read(_with_null(text))

    load.reads_none = True
    set_loader("yaml", load, exceptions=(yaml.YAMLError,))


def check_nulls(config: Namespace) -> None:
    """Makes sure that options of classes are null only where they may be, which jsonargparse lets pass.

    Raises:
        ValueError: one is null that needs a value.
    """
    for place, target, arguments in named_classes(config):
        for name, kind in _never_null(target):
            if name in arguments and arguments[name] is None:
                raise ValueError(f"{place}.{name} is null: give it a value ({kind})")


def named_classes(config: Namespace, path: str = "") -> Iterator[tuple[str, Any, Namespace]]:
    """Classes and functions that a config names with arguments: where, what is named, its arguments.

    Args:
        config: as it was parsed.
        path: of its keys.
    """
    for key, value in vars(config).items():
        place = f"{path}.{key}" if path else key
        for entry in value if isinstance(value, list) else [value]:
            if not isinstance(entry, Namespace):
                continue
            arguments = entry.get("init_args")
            if "class_path" in entry and isinstance(arguments, Namespace):
                yield place, find_object(entry.class_path), arguments
                yield from named_classes(arguments, place)
            else:
                yield from named_classes(entry, place)


def _never_null(target: Callable) -> Iterator[tuple[str, str]]:
    """Names and types of the arguments that have a default and cannot be None."""
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError, NameError):
        return
    for name, parameter in parameters.items():
        hint = hints.get(name, Any)
        members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        if parameter.default not in (None, parameter.empty) and members and not {Any, None, type(None)} & set(members):
            yield name, getattr(hint, "__name__", str(hint))


def _with_null(text: str) -> str:
    if "None" not in text:
        return text
    places = sorted(_plain_nones(yaml.compose(text, Loader=yaml.SafeLoader)), reverse=True)
    for start, end in places:
        text = f"{text[:start]}null{text[end:]}"
    return text


def _plain_nones(node: yaml.Node | None) -> Iterator[tuple[int, int]]:
    """Where the word stands as a value without quotes."""
    if isinstance(node, yaml.ScalarNode) and node.style is None and node.value == "None":
        yield node.start_mark.index, node.end_mark.index
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            yield from _plain_nones(part)
    elif isinstance(node, yaml.MappingNode):
        for _, part in node.value:
            yield from _plain_nones(part)
