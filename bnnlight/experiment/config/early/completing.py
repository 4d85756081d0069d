"""The options of a verb with a config, for completion: those of its page, and of the classes that the line names."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

from bnnlight.console.shipped_configs import shipped_configs, with_found_configs
from bnnlight.experiment.config.early.check import known_classes
from bnnlight.experiment.config.early.help_page import VERBS, any_page
from bnnlight.experiment.config.early.signatures import names_in, signature, words

_CLASSES = {"model": "bnnlight.tasks", "data": "bnnlight.data", "backbone": "bnnlight.backbones"}
"""Option → the module whose classes may be named there."""


def config_parser(verb: str, args: Sequence[str]) -> argparse.ArgumentParser | None:
    """A parser that knows a verb's options and their values, and reads nothing.

    Args:
        verb: any one.
        args: words that stand behind it already.

    Returns:
        None where the verb takes no config.
    """
    page = any_page(verb) if verb in VERBS else None
    if page is None:
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    types, flags = page.types(), page.flags()
    options = {name: kind for name, kind in types.items() if not name.endswith((".help", "+")) and len(name) > 1}
    try:
        args = with_found_configs(args)
    except FileNotFoundError:
        args = []
    options |= dict(_of_classes(known_classes(args, page)))
    for name, kind in options.items():
        if name in flags:
            parser.add_argument(f"--{name}", action="store_true")
            continue
        # as often as it is wanted: overlays are several configs
        option = parser.add_argument(f"--{name}", action="append")
        completer = _completer(name, kind)
        if completer:
            option.completer = completer
    return parser


def _of_classes(classes: dict[tuple[str, ...], str]) -> Iterator[tuple[str, str]]:
    for where, name in classes.items():
        told = signature(name)
        for option, kind in told.options.items() if told else ():
            choices = words(kind, told.module) if kind else None
            yield ".".join((*where, option)), f"Literal[{', '.join(map(repr, choices))}]" if choices else kind


def _completer(name: str, kind: str) -> Callable[..., Sequence[str]] | None:
    """What gives an option's values; None leaves the names of files."""
    last = name.rpartition(".")[2]
    if name == "config":
        return _configs
    if last in _CLASSES:
        module = _CLASSES[last]
        values = [f"{module}.{one}" for one in names_in(module) or ()]
    elif kind in ("bool", "Optional[bool]", "bool | None"):
        values = ["true", "false"]
    elif choices := words(kind, ""):
        values = list(choices)
    elif kind.startswith(("int", "float", "Optional[int]")):
        values = []
    else:
        return None
    return lambda **_: values


def _configs(prefix: str, **_: object) -> Sequence[str]:
    from argcomplete.completers import FilesCompleter

    names = [name for name in shipped_configs() if not name.startswith(("matrix/", "sweeps/"))]
    return [*names, *FilesCompleter(["yaml", "yml"])(prefix)]
