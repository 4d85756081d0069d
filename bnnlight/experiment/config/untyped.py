"""Arguments of one's own classes and functions that have no type hint: a config cannot make a latent for them."""

from __future__ import annotations

import inspect
import typing
from typing import Any

from jsonargparse import Namespace

from bnnlight.console.known_names import find_object
from bnnlight.experiment.config.null_values import named_classes


def check_hints(config: Namespace) -> None:
    """Makes sure that whatever is to be handed a latent says so: without, it is handed the config's own words.

    Raises:
        ValueError: an argument has no type hint, or Any, and the config names a latent for it.
    """
    latent = find_object("bnnlight.nn.Latent")
    for place, target, arguments in named_classes(config):
        for name, value in vars(arguments).items():
            path = value.get("class_path") if isinstance(value, Namespace) else value
            kind = find_object(path) if isinstance(path, str) and "." in path else None
            if inspect.isclass(kind) and issubclass(kind, latent) and _is_untyped(target, name):
                raise ValueError(
                    f"{place}.{name}: {target.__module__}.{target.__qualname__} does not say what its argument {name} "
                    f"is: write {name}: LatentFactory there, from bnnlight.nn import LatentFactory"
                )


def _is_untyped(target: Any, name: str) -> bool:
    try:
        parameter = inspect.signature(target).parameters.get(name)
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (TypeError, ValueError, NameError):
        return False
    return parameter is not None and hints.get(name, Any) is Any
