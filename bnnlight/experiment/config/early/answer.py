"""Answers what a verb with a config can be asked without torch and Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from bnnlight.console.shipped_configs import with_found_configs
from bnnlight.experiment.config.early.help_page import VERBS, kept_page, terminal_width

_HELP = ("--help", "-h")


def answer(verb: str, args: Sequence[str]) -> bool:
    """Prints the help of a verb, or raises what is wrong with its command line, where that can be told at once.

    Args:
        verb: any one; those without a config answer for themselves.
        args: what stands behind it.

    Returns:
        Whether there is nothing left to do.

    Raises:
        ValueError: an option or a config is wrong; the message is one line.
        FileNotFoundError: there is no such config or checkpoint.
    """
    # without what trains, the verb says what to install
    if verb not in VERBS or not all(map(_is_there, ("lightning", "torch", "jsonargparse", "yaml"))):
        return False
    page = kept_page(verb)
    if len(args) == 1 and args[0] in _HELP:
        if page:
            print(page.wrapped(terminal_width()), end="")
        return page is not None
    # imported late: help needs no YAML
    from bnnlight.experiment.config.early.check import check
    from bnnlight.experiment.config.files import check_config_files

    if "--" in args:  # what stands behind it is not an option
        return False
    found = with_found_configs(args)
    check_config_files(found)
    asks = any(word in _HELP or word.partition("=")[0].endswith((".help", "--print_config")) for word in found)
    if page and not asks:
        check(verb, found, page)
    return False


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
