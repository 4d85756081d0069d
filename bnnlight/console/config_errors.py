"""Explains jsonargparse's errors in one line: the key, what is wrong with it, the nearest right name."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Any

_NOISE = re.compile(
    r"^(Does not validate against|Subtypes: |Errors:|Given value type: |Subclass types expect one of|a class path \(|"
    r"a dict with|Expected a <class 'NoneType'>|Expected a path but)"
)
_VAGUE = re.compile(
    r"^(Not a valid subclass of|Expected a <class '(?!int|float|str)|Expected an instantiatable class, but lightning\.)"
)
"""What jsonargparse says of the types that the value was not meant for."""
_CALLABLE = re.compile(r"Type \S*Callable\[.*?\] expects a function or a callable class:\s*")
_STEP = re.compile(r"(?:Parser key \"([^\"]+)\"|Problem with given class_path '([^']+)'):\s*")
_CLASS = re.compile(r"Namespace\(class_path='([^']+)'")

_ROOMS_OF_DATA = {
    "classes": "digits folders image_folder splits vision",
    "keypoints": "heatmaps lsp mpii mpii_heads mpii_json mpii_release people pictures",
    "loading": "bad_images by_value checking files sampling train_loader transforms worker_signals",
}
_ROOMS_OF_NN = {
    "compute": "binary_conv conv_gradients integer_conv lean patches product relaxed rounding sync_norm",
    "latents": "cp hadamard holistic latent matrix rank rotated tensor_train tucker unfolding",
}
_MOVED = {
    **{f"bnnlight.data.{n}": (f"bnnlight.data.{r}.{n}",) for r, names in _ROOMS_OF_DATA.items() for n in names.split()},
    **{f"bnnlight.nn.{n}": (f"bnnlight.nn.{r}.{n}",) for r, names in _ROOMS_OF_NN.items() for n in names.split()},
    "bnnlight.callbacks.stages": ("bnnlight.callbacks.schedules.stages",),
    "bnnlight.data.loaders": ("bnnlight.data.loading.loaders", "bnnlight.data.classes.data_module"),
    "bnnlight.data.pose": ("bnnlight.data.keypoints.person", "bnnlight.data.keypoints.data_module"),
    "bnnlight.data.pose_checks": ("bnnlight.data.keypoints.checks",),
    "bnnlight.data.pose_files": ("bnnlight.data.keypoints.annotations",),
    "bnnlight.data.pose_transforms": ("bnnlight.data.keypoints.transforms",),
    "bnnlight.commands.checkpoint_io": ("bnnlight.experiment.checkpoint_io",),
    "bnnlight.commands.processes": ("bnnlight.experiment.processes",),
}
"""Classes and modules that configs, and classes of one's own, of earlier versions name → where they are now."""

OWN_GROUPS = (
    *("model", "data", "trainer", "seed_everything", "checkpoint", "last_checkpoint", "non_finite"),
    *("flip_rates", "factor_ranks", "alphas", "activations", "step_time", "pictures", "bad_images"),
    *("lr_monitor", "progress", "heartbeat"),
)
"""What stands at the top of a config."""

_CHOICES = re.compile(
    r"Subtypes: \[((?:typing\.Literal\[[^]]*\]|<class 'NoneType'>|, )+)\]\n(\s*)Errors:\n(?:\s*- Expected a .*\n)+"
)
"""What jsonargparse says where an option takes one of several lists of words, each of which it names by itself."""


@dataclass
class Cause:
    """One of the reasons in jsonargparse's message.

    Attributes:
        text: what is wrong.
        path: keys on the way to it, in a row.
        owner: the class whose option it is; None where none is known.
        value: what was given; "" where that is not told.
    """

    text: str
    path: tuple[str, ...]
    owner: str | None = None
    value: str = ""


def named_failures(class_type: type, *args: Any, **kwargs: Any) -> Any:
    """Makes an object of a config, for jsonargparse, which by itself drops an error's kind and the class it came from.

    Raises:
        ValueError: a class that is not of this package cannot be made; the message names it.
    """
    try:
        return class_type(*args, **kwargs)
    except Exception as error:
        name = f"{class_type.__module__}.{class_type.__qualname__}"
        own = name.startswith("bnnlight.") and isinstance(error, ValueError | OSError)
        if own or getattr(error, "is_named", False):
            raise
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        named = ValueError(f"{name} cannot be made: {kind}{' '.join(str(error).split())}")
        named.is_named = True  # on its way through the classes that it was made for
        raise named from error


def explain_config(text: str) -> str:
    """The cause inside jsonargparse's nested message, with the path of the key and the nearest right name."""
    causes = list(_causes(_CHOICES.sub(_joined, text)))
    # the deepest one of a type that the value was meant for; the first of several
    cause = max(causes, key=lambda c: (not _VAGUE.match(c.text), len(c.path), c.owner is not None), default=None)
    cause = cause or Cause(" ".join(text.split()), ())
    line = _hint(cause)
    return f"{'.'.join(cause.path)}: {line}" if cause.path else line


def _joined(match: re.Match[str]) -> str:
    """One list of the words, each of them once, in the place of several."""
    words = [word.strip("' ") for part in re.findall(r"Literal\[(.*?)\]", match[1]) for word in part.split(",")]
    return f"Errors:\n{match[2]}  - Expected a typing.Literal[{', '.join(map(repr, dict.fromkeys(words)))}]\n"


def _causes(text: str) -> Iterator[Cause]:
    """All reasons of a message, which is a tree by its indentation."""
    way: list[tuple[int, str | None, str | None]] = []
    open_: list[tuple[int, Cause]] = []
    for raw in text.splitlines():
        indent = len(raw) - len(raw.lstrip())
        line = raw.strip().removeprefix("- ").strip()
        if not line:
            continue
        while way and way[-1][0] >= indent:
            way.pop()
        if line.startswith("Given value: "):
            part, _, whole = line.removeprefix("Given value: ").partition(". Got value: ")
            nested = re.fullmatch(r"NestedArg\(key='[^']*', val='(.*)'\)", part)
            owner = _CLASS.match(part) or _CLASS.match(whole)
            # of all reasons below that know no nearer one
            for deep, cause in open_:
                if deep > indent and not cause.value:
                    cause.value = owner[1] if owner and not whole else nested[1] if nested else part
                    cause.owner = cause.owner or (owner and owner[1])
            continue
        line = _CALLABLE.sub("", line)
        # one line may hold several steps of the way to the key, each followed by the next
        while step := _STEP.match(line):
            way.append((indent, step[1], step[2]))
            line = _CALLABLE.sub("", line[step.end() :])
        if not line or _NOISE.match(line):
            continue
        # first the value itself, then those that it is a part of
        _, *parts = line.split(". Got value: ")
        inner = next(filter(None, map(_CLASS.match, parts)), None)
        # behind a key comes its value, of whose class the message may yet tell
        owner = inner[1] if inner else way[-1][2] if way else None
        value = "" if not parts else inner[1] if _CLASS.match(parts[0]) else parts[0]
        open_.append((indent, Cause(line, tuple(key for _, key, _ in way if key), owner, value)))
    yield from (cause for _, cause in open_)


def _hint(cause: Cause) -> str:
    text, owner, value = cause.text, cause.owner, cause.value
    if match := re.search(r"Option '([^']+)' is not accepted|Key '([^']+)' is not expected", text):
        key = match[1] or match[2]
        named = f"{owner} has no option {key!r}" if owner else f"no option {key!r}"
        # of a key at the top of a config the first part is wrong, else the last
        return named + nearest(key.split(".")[0 if owner is None else -1], _options(owner))
    if match := re.search(r"Group '([^']+)' does not accept option '([^']+)'", text):
        options = _trainer_options() if match[1] == "trainer" else []
        return f"{match[1]} has no option {match[2]!r}" + nearest(match[2], options)
    nested = r"[Uu]nrecognized arguments?: (.*)|Group '[^']*' does not accept nested key '([^']*)'"
    if match := re.search(nested, text):
        key = (match[1] or match[2]).split()[0]
        return f"no option {key!r}" + nearest(key.lstrip("-").split("=")[0].split(".")[-1], _trainer_options())
    if match := re.search(r"the following arguments are required: (.*)", text):
        if not cause.path and match[1].split(",")[0] not in ("model", "data"):
            return text  # of a verb without a config
        if not cause.path:
            return (
                f"no {match[1].split(',')[0]} is configured: pass --config FILE, or --config NAME of `bnnlight configs`"
            )
        first = ".".join((*cause.path, match[1].split(",")[0]))
        return f"{owner or value} needs {match[1]}: pass --{first} VALUE, or add it to the init_args of the config"
    if match := re.search(r"No module named '([^']+)'", text):
        name = owner or value
        now = moved(match[1])
        if now:
            return f"{name or 'it'} cannot be imported: its module imports {match[1]!r}, which has moved to {now}"
        if (name + ".").startswith(match[1] + "."):
            return (
                f"no module named {match[1]!r}, where {name} was looked for: put its file beside the config or into "
                "the current folder, or add its folder to PYTHONPATH"
            )
        return f"{name or 'it'} cannot be imported: its module imports {match[1]!r}, which is not installed"
    if match := re.search(r"Expected an instantiatable class, but ?(\S*) is (abstract|a protocol)", text):
        name = match[1] or value
        lacking = ", ".join(sorted(getattr(find_object(name), "__abstractmethods__", ())))
        return f"{name} is abstract: name a class that is derived from it" + (f", with {lacking}" if lacking else "")
    if match := re.search(r"(?:does not correspond to a subclass of|'([^']+)' to be a subclass of) (\S+)", text):
        # the type's name comes as it is, or as <class 'name'>
        kind = (re.search(r"<class '([^']+)'>", text) or match)[1 if "<class" in text else 2]
        return f"{match[1] or value} is no {kind.rsplit('.', 1)[-1]}"
    if match := re.match(r"Not a valid subclass of (\w+)", text):
        return f"{value or 'what is given'} is no {match[1]}: name one by its class_path"
    if match := re.search(r"Expected a dot import path string: (\S+)", text):
        return f"no class named {match[1]!r}" + nearest(match[1], _class_names())
    if match := re.search(r"module '([^']+)' has no attribute '([^']+)'", text):
        lacking = f"{match[1]}.{match[2]}"
        # it may be the module of the class that is named
        name = next((n for n in (owner, value) if n and n.startswith(f"{lacking}.")), lacking)
        now = moved(name)
        if now:
            return f"{name} has moved: write {now}"
        names = {n: f"{match[1]}.{n}" for n in _public_names(match[1])}
        return f"{match[1]} has no class named {match[2]!r}" + nearest(match[2], names)
    if match := re.search(r"typing\.Literal\[(.*?)\]", text):
        choices = [choice.strip("' ") for choice in match[1].split(",")]
        return f"{value!r} is none of {', '.join(choices)}" + nearest(value, choices, silent=True)
    if match := re.search(r"Expected a <class '([\w.]+)'>", text):
        return f"{'null' if value == 'None' else repr(value)} is not of type {match[1]}"
    text = re.sub(r"\. Got value: (\S+)$", "", text)
    return f"{owner}: {text}" if owner and owner not in text and not owner.startswith("bnnlight.") else text


def nearest(name: str, names: Iterable[str], silent: bool = False) -> str:
    """What to say of a name that there is none of: ``": did you mean …?"``.

    Args:
        name: as it was given; of a path its last part counts.
        names: that there are, or name → what to write.
        silent: without anything near, say nothing; else all names are listed where they are 20 or fewer.
    """
    table = names if isinstance(names, dict) else {k: k for k in names}
    short = name.split(".")[-1]
    lower = {k.lower(): k for k in table}
    near = get_close_matches(short.lower(), lower, 3, cutoff=0.6)
    if near:
        # of several that are as near the first by name: max_epochs before min_epochs
        best = min(near, key=lambda one: (-SequenceMatcher(None, one, short.lower()).ratio(), one))
        return f": did you mean {table[lower[best]]}?"
    if silent or not table:
        return ""
    return f": it has {', '.join(sorted(table))}" if len(table) <= 20 else ""


def _options(owner: str | None) -> list[str]:
    """Names of a class's options, following **options into the parent class."""
    if owner is None:
        return list(OWN_GROUPS)
    target = find_object(owner)
    if target is None:
        return []
    names: list[str] = []
    for cls in inspect.getmro(target) if inspect.isclass(target) else (target,):
        parameters = inspect.signature(cls.__init__ if inspect.isclass(cls) else cls).parameters.values()
        names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def moved(name: str) -> str | None:
    """Where a class or a module of an earlier version is now; None where it has not moved, or is not there any more.

    A class that its folder names is told by this shorter path, which stays.
    """
    if name in _MOVED:
        return " and ".join(_MOVED[name])
    module, _, last = name.rpartition(".")
    if module not in _MOVED:
        return None
    places = [f"{place}.{last}" for place in (module.rpartition(".")[0], *_MOVED[module])]
    return next((place for place in places if find_object(place) is not None), None)


def find_object(name: str) -> Any:
    """What an import path names; None where it cannot be imported, as a hint must not hide the error it is for."""
    try:
        module, _, name = name.rpartition(".")
        return getattr(importlib.import_module(module), name)
    except Exception:
        return None


def _trainer_options() -> list[str]:
    try:
        import lightning as L
    except ModuleNotFoundError:  # where models are only run; a hint must not hide the error it is for
        return []
    return [*inspect.signature(L.Trainer.__init__).parameters, *_options(None), "config", "run_dir", "ckpt_path"]


def _public_names(module: str) -> list[str]:
    try:
        namespace = importlib.import_module(module)
    except Exception:
        return []
    return [n for n in getattr(namespace, "__all__", dir(namespace)) if n[:1].isupper()]


def _class_names() -> dict[str, str]:
    modules = ("nn", "optim", "backbones", "data", "tasks", "callbacks")
    names = {n: f"bnnlight.{m}.{n}" for m in modules for n in _public_names(f"bnnlight.{m}")}
    return names | {n: f"torch.optim.{n}" for n in _public_names("torch.optim")}
