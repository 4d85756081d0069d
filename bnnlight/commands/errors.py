"""One line for every error: what, where and what to do."""

from __future__ import annotations

import importlib
import inspect
import re
from argparse import ArgumentError  # jsonargparse raises this one too
from collections.abc import Iterable
from difflib import get_close_matches

from bnnlight.commands.machine_errors import explain_machine
from bnnlight.guards.lost_connection import lost_connection

DIVERGED = 3
"""Exit code of a training that would come to the same end with the same options: its numbers are not finite."""

_NOISE = re.compile(
    r"^(Does not validate against|Subtypes: |Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but)"
)
_CALLABLE = re.compile(r"Type \S*Callable\[.*?\] expects a function or a callable class:\s*")


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and message of an error.

    Args:
        error: as it reached the command line.

    Returns:
        2 and a line for what is wrong on the command line or in a config, 3 and a line for a training whose numbers are
        no longer finite, 1 and a line for all else.
    """
    text = str(error)
    if "Problems parsing config" in text:
        return 2, "the config is not valid YAML: " + _join(text.removeprefix("Problems parsing config:").splitlines())
    if isinstance(error, ArgumentError) or "Does not validate against" in text:
        return 2, _explain_config(text)
    if lost := lost_connection(error):
        return 1, lost
    # an error in a data loader's worker arrives with the worker's traceback; its last line is the message
    lines = [line for line in text.splitlines() if line.strip()]
    if text.startswith("Caught ") and lines:
        text = re.sub(r"^[\w.]*(Error|Exception): ", "", lines[-1])
    elif lines:
        text = _join(lines[:1] if len(lines) > 3 else lines)
    machine = explain_machine(error, text)
    if machine:
        return 1, machine
    code = 2 if isinstance(error, ValueError | FileNotFoundError | NotADirectoryError) else 1
    code = DIVERGED if isinstance(error, FloatingPointError) else code
    known = isinstance(error, ValueError | OSError | FloatingPointError) and text
    return code, text if known else f"{type(error).__name__}: {text} (run again with --debug to see where)"


def _join(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())


def _explain_config(text: str) -> str:
    """The cause inside jsonargparse's nested message, with the path of the key and the nearest right name."""
    path: list[str] = []
    owner: str | None = None
    causes: list[str] = []
    for raw in text.splitlines():
        line = _CALLABLE.sub("", raw).strip().removeprefix("- ").strip()
        # one message may hold several steps of the way to the key, each followed by the next
        while True:
            step = re.match(r"(?:Parser key \"([^\"]+)\"|Problem with given class_path '([^']+)'):\s*", line)
            if not step:
                break
            if step[1]:
                path.append(step[1])
            else:
                owner = step[2]
            line = _CALLABLE.sub("", line[step.end() :])
        inner = re.search(r"Got value: Namespace\(class_path='([^']+)'", line)
        owner = inner[1] if inner else owner
        if line and not _NOISE.match(line):
            causes.append(line)
    cause = causes[0] if causes else _join(text.splitlines())
    given = re.search(r"Given value: (\S+?)\.? ", text + " ")
    if re.fullmatch(r"Expected a <class '\w+'>", cause) and given:
        cause += f". Got value: {given[1]}"
    where = ".".join(path)
    return f"{where}: {_hint(cause, owner)}" if where else _hint(cause, owner)


def _hint(cause: str, owner: str | None) -> str:
    if found := re.search(r"Option '([^']+)' is not accepted|Key '([^']+)' is not expected", cause):
        key = found[1] or found[2]
        named = f"{owner} has no option {key!r}" if owner else f"no option {key!r}"
        # of a key at the top of a config the first part is wrong, else the last
        return named + _nearest(key.split(".")[0 if owner is None else -1], _options(owner))
    if found := re.search(r"Group '([^']+)' does not accept option '([^']+)'", cause):
        known = _trainer_options() if found[1] == "trainer" else []
        return f"{found[1]} has no option {found[2]!r}" + _nearest(found[2], known)
    nested = r"[Uu]nrecognized arguments?: (.*)|Group '[^']*' does not accept nested key '([^']*)'"
    if found := re.search(nested, cause):
        key = (found[1] or found[2]).split()[0]
        return f"no option {key!r}" + _nearest(key.lstrip("-").split("=")[0].split(".")[-1], _trainer_options())
    if found := re.search(r"the following arguments are required: (model|data)", cause):
        return f"no {found[1]} is configured: pass --config FILE, such as configs/quickstart.yaml"
    if found := re.search(r"Expected a dot import path string: (\S+)", cause):
        return f"no class named {found[1]!r}" + _nearest(found[1], _class_names())
    if found := re.search(r"module '([^']+)' has no attribute '([^']+)'", cause):
        names = {n: f"{found[1]}.{n}" for n in _public_names(found[1])}
        return f"{found[1]} has no class named {found[2]!r}" + _nearest(found[2], names)
    if found := re.search(r"typing\.Literal\[(.*?)\]\. Got value: ([^\s.]+)", cause):
        choices = re.findall(r"'([^']*)'", found[1])
        return f"{found[2]!r} is none of {', '.join(choices)}" + _nearest(found[2], choices, silent=True)
    if found := re.search(r"Expected a <class '(\w+)'>\. Got value: (.*)", cause):
        return f"{found[2]!r} is not of type {found[1]}"
    return cause


def _nearest(name: str, known: Iterable[str], silent: bool = False) -> str:
    """ ", did you mean …" or, without anything near, the list of what there is."""
    table = known if isinstance(known, dict) else {k: k for k in known}
    short = name.split(".")[-1]
    lower = {k.lower(): k for k in table}
    near = get_close_matches(short.lower(), lower, 1, cutoff=0.6)
    if near:
        return f": did you mean {table[lower[near[0]]]}?"
    if silent or not table:
        return ""
    return f": it has {', '.join(sorted(table))}" if len(table) <= 20 else ""


def _options(owner: str | None) -> list[str]:
    """Names of a class's options, following **options into the parent class."""
    if owner is None:
        looks = ["flip_rates", "factor_ranks", "alphas", "activations", "step_time", "pictures", "bad_images"]
        callbacks = ["checkpoint", "last_checkpoint", "non_finite", *looks, "lr_monitor", "progress", "heartbeat"]
        return ["model", "data", "trainer", "seed_everything", *callbacks]
    try:
        module, _, name = owner.rpartition(".")
        found = getattr(importlib.import_module(module), name)
    except Exception:  # a hint must not hide the error it is for
        return []
    names: list[str] = []
    for cls in inspect.getmro(found) if inspect.isclass(found) else (found,):
        parameters = inspect.signature(cls.__init__ if inspect.isclass(cls) else cls).parameters.values()
        names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def _trainer_options() -> list[str]:
    import lightning as L

    return [*inspect.signature(L.Trainer.__init__).parameters, *_options(None), "config", "run_dir", "ckpt_path"]


def _public_names(module: str) -> list[str]:
    try:
        found = importlib.import_module(module)
    except Exception:
        return []
    return [n for n in getattr(found, "__all__", dir(found)) if n[:1].isupper()]


def _class_names() -> dict[str, str]:
    modules = ("nn", "backbones", "data", "tasks", "callbacks")
    names = {n: f"bnnlight.{m}.{n}" for m in modules for n in _public_names(f"bnnlight.{m}")}
    return names | {n: f"torch.optim.{n}" for n in _public_names("torch.optim")}
