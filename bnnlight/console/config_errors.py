"""Explains jsonargparse's errors in one line: the key, what is wrong with it, the nearest right name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from bnnlight.console.known_names import (
    class_names,
    find_object,
    meant_by,
    moved,
    nearest,
    options_of,
    public_names,
    trainer_options,
)
from bnnlight.console.unions import as_one

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
    causes = list(_causes(as_one(text)))
    # the deepest one of a type that the value was meant for; the first of several
    cause = max(causes, key=lambda c: (not _VAGUE.match(c.text), len(c.path), c.owner is not None), default=None)
    cause = cause or Cause(" ".join(text.split()), ())
    line = _hint(cause)
    return f"{'.'.join(cause.path)}: {line}" if cause.path else line


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
        return named + nearest(key.split(".")[0 if owner is None else -1], options_of(owner))
    if match := re.search(r"Group '([^']+)' does not accept option '([^']+)'", text):
        options = trainer_options() if match[1] == "trainer" else []
        return f"{match[1]} has no option {match[2]!r}" + nearest(match[2], options)
    nested = r"[Uu]nrecognized arguments?: (.*)|Group '[^']*' does not accept nested key '([^']*)'"
    if match := re.search(nested, text):
        key = (match[1] or match[2]).split()[0]
        if match[1] and not key.startswith("-"):
            return f"{key!r} does not belong to any option" + meant_by(key)
        return f"no option {key!r}" + nearest(key.lstrip("-").split("=")[0].split(".")[-1], trainer_options())
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
        return f"{match[1] or value} is not {_a(kind.rsplit('.', 1)[-1])}"
    if match := re.match(r"Not a valid subclass of (\w+)", text):
        return f"{value or 'what is given'} is not {_a(match[1])}: name one by its class_path"
    if match := re.search(r"Expected a dot import path string: ([^\s;]+)(?:; of (\S+))?", text):
        kinds = (match[2] or "").split("|")
        if len(kinds) == 1 and kinds[0] and is_dataclass(options := find_object(kinds[0])):
            names = ", ".join(field.name for field in fields(options))
            return f"{match[1]!r} is not true, false or a set of options ({names})"
        return f"no class named {match[1]!r}" + _nearest_class(match[1], kinds)
    if match := re.search(r"module '([^']+)' has no attribute '([^']+)'", text):
        lacking = f"{match[1]}.{match[2]}"
        # it may be the module of the class that is named
        name = next((n for n in (owner, value) if n and n.startswith(f"{lacking}.")), lacking)
        now = moved(name)
        if now:
            return f"{name} has moved: write {now}"
        if pair := _hidden_file(match[1]):
            return f"{name} is looked for in {pair[0]}, and not in {pair[1]}: give that file a name of its own"
        if name != lacking:
            return (
                f"{match[1]} has no module or class named {match[2]!r}, where {name} was looked for: where it has been "
                "moved or renamed, write its new path"
            )
        names = {n: f"{match[1]}.{n}" for n in public_names(match[1])}
        return f"{match[1]} has no class named {match[2]!r}" + nearest(match[2], names)
    if match := re.search(r"typing\.Literal\[(.*?)\]", text):
        choices = [choice.strip("' ") for choice in match[1].split(",")]
        return f"{value!r} is not one of {', '.join(choices)}" + nearest(value, choices, silent=True)
    if text.startswith("Expected a number"):
        return f"{value!r} is not a number"
    if re.match(r"Expected a <class '(collections\.abc\.Sequence|list)'>", text):
        return _as_list(value)
    if match := re.search(r"Expected a <class '([\w.]+)'>", text):
        return f"{'null' if value == 'None' else repr(value)} is not of type {match[1]}"
    text = re.sub(r"\. Got value: (\S+)$", "", text)
    return f"{owner}: {text}" if owner and owner not in text and not owner.startswith("bnnlight.") else text


def _a(name: str) -> str:
    """A name with its article."""
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _hidden_file(module: str) -> tuple[Path, Path] | None:
    """The file that a name stands for, and one of the user's own of that name, which is not imported therefore."""
    root = module.split(".")[0]
    taken = getattr(sys.modules.get(root), "__file__", None)
    if not taken or root == "bnnlight":
        return None
    own = (folder for folder in map(Path, sys.path) if not {"site-packages", "dist-packages"} & {*folder.parts})
    files = (file for folder in own for file in (folder / f"{root}.py", folder / root / "__init__.py"))
    return next(
        ((Path(taken), file) for file in files if file.is_file() and file.resolve() != Path(taken).resolve()), None
    )


def _nearest_class(name: str, kinds: list[str]) -> str:
    """As :func:`nearest`, of those classes alone that an option takes, where that is known: a few are all named."""
    names = class_names()
    bases = tuple(kind for kind in map(find_object, kinds) if isinstance(kind, type))
    if not bases:
        return nearest(name, names)
    fitting = {
        short: path
        for short, path in names.items()
        if isinstance(of := find_object(path), type) and issubclass(of, bases)
    }
    near = nearest(name, fitting, silent=True)
    few = 0 < len(fitting) <= 5
    return near or (f": it takes {' or '.join(sorted(fitting.values()))}, by its class_path" if few else "")


def _as_list(value: str) -> str:
    """That a value is not a list, and the list that it would be."""
    name = re.search(r"'class_path': '([^']+)'", value)
    if name and "init_args" in value:
        return f"{name[1]} stands alone where a list is expected: write - class_path: {name[1]}, and init_args below it"
    given = name[1] if name else value
    path = class_names().get(given, given)
    return f"{given!r} is not a list: write " + (f"[{path}]" if "." in path else "one, as [A, B]")
