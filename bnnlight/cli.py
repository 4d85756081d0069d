"""The command line, `bnnlight VERB`: the table of verbs, and errors printed as one line."""

from __future__ import annotations

import importlib
import os
import select
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path

from bnnlight.console.large import large_imports

_VERBS = {
    "fit": ("bnnlight.commands.fit:fit", "train a network, then test its best checkpoint"),
    "validate": ("bnnlight.commands.fit:validate", "measure a checkpoint on the validation data"),
    "test": ("bnnlight.commands.fit:test", "measure a checkpoint on the test data"),
    "check": ("bnnlight.commands.check:check", "read a config's whole data set, and name what cannot be read"),
    "predict": ("bnnlight.commands.predict:predict", "name the class or find the pose in image files"),
    "export": ("bnnlight.commands.export:export", "write a checkpoint as a model to ship, one bit per binary weight"),
    "bench": ("bnnlight.commands.bench:bench", "time an exported model beside its real-valued twin"),
    "compare": ("bnnlight.commands.compare:compare", "compare runs: table, curves, flip rates, ranks, α"),
    "matrix": ("bnnlight.commands.matrix:matrix", "train methods × seeds under one protocol: table, intervals, figure"),
    "summary": ("bnnlight.commands.summary:summary", "count a network's layers, parameters, bytes and multiply-adds"),
    "pckh": ("bnnlight.commands.pckh:pckh", "measure the PCKh of stored predictions against MPII's ground truth"),
    "oks": ("bnnlight.commands.oks:oks", "measure AP and AR of stored keypoints against COCO annotations"),
    "configs": ("bnnlight.commands.configs:configs", "list the configs that come with the package"),
    "doctor": ("bnnlight.commands.doctor:doctor", "list versions, GPU, threads and what is missing, for a bug report"),
    "dashboard": ("bnnlight.commands.dashboard:dashboard", "save a W&B view that compares the runs of a project"),
}

_HELP = """usage: bnnlight VERB [options]

Train binary neural networks with factorized weights, watch them, ship them.

verbs:
{verbs}

options, before or after the verb:
  --help     this text, or a verb's own options: bnnlight VERB --help
  --version  the version
  --debug    on an error, show where in the code it arose
  --install-completion [SHELL]  complete command lines by tab, in bash, zsh or fish

example: bnnlight fit --config quickstart"""


def _help() -> str:
    width = max(map(len, _VERBS))
    return _HELP.format(verbs="\n".join(f"  {verb:<{width}}  {text}" for verb, (_, text) in _VERBS.items()))


def _load(verb: str) -> Callable[[list[str]], None]:
    module, function = _VERBS[verb][0].split(":")
    # torch asks once, for its first tensor, whether large ones on a CPU are to lie on huge pages, where Linux has them:
    # a training step takes some 7 % less there
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with large_imports():
        return getattr(importlib.import_module(module), function)


def _complete() -> None:
    from bnnlight.console.completion import complete
    from bnnlight.experiment.config.early.completing import config_parser

    complete({verb: text for verb, (_, text) in _VERBS.items()}, _load, config_parser)


def _install_completion(args: list[str]) -> int:
    from bnnlight.console.completion import install
    from bnnlight.console.errors import explain

    try:
        if len(args) > 1:
            raise ValueError(f"{args[1]!r} does not belong to any option: give one shell, or none for the current one")
        print(install(args[0] if args else None, Path.home()))
    except (ValueError, OSError, ImportError) as error:
        code, line = explain(error)
        print(f"bnnlight: error: {line}", file=sys.stderr)
        return code
    return 0


def _has_no_reader() -> bool:
    """Whether the reader of the output has closed it, as `head` does, and not another pipe or connection broke."""
    try:
        out, polled = sys.stdout.fileno(), select.poll()
    except (OSError, AttributeError):  # no file of the system's, or a system without poll
        return False
    polled.register(out, 0)
    if not any(event & select.POLLERR for _, event in polled.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), out)  # Python would flush into the same pipe as it exits
    return True


def main(argv: list[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv: the command line behind the program's name; ``sys.argv[1:]`` by default.

    Returns:
        0, or 2 where the command line or config is wrong, 3 where a training diverged,
        130 when interrupted by Ctrl-C, 1 on any other error.

    Raises:
        SystemExit: a verb ends the process itself: after its help, or as a run that a signal stopped (75).
    """
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow
        _complete()
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    if not args or args[0] in ("--help", "-h", "help"):
        print(_help())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"bnnlight {version('bnnlight')}")
        return 0
    if args[0] == "--install-completion":
        return _install_completion(args[1:])
    verb, rest = args[0], args[1:]
    if verb not in _VERBS:
        near = get_close_matches(verb, _VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(_VERBS)}"
        print(f"bnnlight: error: no verb named {verb!r}: {hint}", file=sys.stderr)
        return 2
    # Lightning calls jsonargparse by names that are going out of use; that is no news for a user
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # imported late: `bnnlight --help` should not wait for torch
    from bnnlight.console.errors import explain
    from bnnlight.experiment.config.early.answer import answer

    try:
        if not answer(verb, rest):
            _load(verb)(rest)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"bnnlight {verb}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and verb != "fit" and _has_no_reader():
            return 1
        if debug:
            traceback.print_exc()
        code, line = explain(error)
        # lets go of data loaders in the frames below, whose workers would hold up the exit for seconds
        traceback.clear_frames(error.__traceback__)
        print(f"bnnlight {verb}: error: {line}", file=sys.stderr)
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
