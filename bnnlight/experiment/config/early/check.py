"""Finds what is surely wrong with a command line of a verb with a config: names, words where numbers belong, ranges.

Whatever is not certain is passed over, since jsonargparse looks at everything again. What is said here is what it says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bnnlight.console.known_names import OWN_GROUPS, meant_by, nearest
from bnnlight.console.shipped_configs import is_file
from bnnlight.experiment.config.early.help_page import Page
from bnnlight.experiment.config.early.signatures import names_in, signature, words
from bnnlight.experiment.config.early.sources import CONFIG, Way, entries, sources
from bnnlight.experiment.config.option_ranges import fault

_OBJECTS = ("model", "data")
"""Options that name a class."""
_WRAPPERS = ("init_args",)
"""Words in the path of an option that may be left out."""
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_WORD = re.compile(r"[A-Za-z_][A-Za-z_-]*")
_NOT_WORDS = {*("true", "false", "yes", "no", "on", "off", "y", "n"), *("null", "none", "nan", "inf", "infinity")}
"""What YAML or Python may read as something else than text."""
_LEAST = {"PositiveInt": 1, "NonNegativeInt": 0}
"""jsonargparse's types of whole numbers."""
_OR_NONE = re.compile(r"Optional\[(\w+)\]|Union\[(\w+), null\]|(\w+) \| (?:null|None)")


def check(verb: str, args: Sequence[str], page: Page) -> None:
    """Looks at a command line.

    Args:
        verb: one of :data:`bnnlight.experiment.config.early.help_page.VERBS`.
        args: what stands behind it; configs are paths.
        page: the verb's help.

    Raises:
        ValueError: something is wrong; the message is one line.
        FileNotFoundError: there is no such checkpoint.
    """
    look, flags, bare = _Look(page), page.flags(), page.bare()
    named, is_whole = set(), True
    for way, value, word in sources(args, flags):
        if not way:
            raise ValueError(f"{value!r} does not belong to any option" + meant_by(value))
        if value is None and word and ".".join(way) in look.types.keys() - flags:
            if ".".join(way) in bare:
                continue
            raise ValueError(f"no value follows {word}")
        look.take(way, value, word)
        named.add(way[0])
        # a config that is text in place of a file may name all that seems to be missing
        is_whole = is_whole and (way != CONFIG or is_file(value))
    if is_whole and "model" not in named:
        raise ValueError("no model is configured: pass --config FILE, or --config NAME of `bnnlight configs`")
    look.check_ranges()
    _check_checkpoint(verb, look.values.get("ckpt_path"), is_whole, resumes=look.resumes)


def known_classes(args: Sequence[str], page: Page) -> dict[Way, str]:
    """Classes that a command line names, configs included: way to the option → class path. What is wrong is left out.

    Args:
        args: what stands behind the verb; configs are paths.
        page: the verb's help.
    """
    look = _Look(page)
    with contextlib.suppress(ValueError, OSError):
        for way, value, word in sources(args, page.flags()):
            if way:
                with contextlib.suppress(ValueError):
                    look.take(way, value, word)
    return look.classes


def _check_checkpoint(verb: str, checkpoint: Any, is_whole: bool, resumes: bool) -> None:
    if checkpoint in (None, "", "null", "None"):
        if verb in ("validate", "test") and is_whole:
            raise ValueError("no checkpoint to measure: pass --ckpt_path RUN/checkpoints/best.ckpt")
    elif not resumes and not is_file(str(checkpoint)):
        raise FileNotFoundError(f"checkpoint not found: {checkpoint}")


class _Look:
    """What is known of a config after some of its sources."""

    def __init__(self, page: Page) -> None:
        self.types = page.types()
        # an option whose value is a class has .help below it, and is not a group
        self.groups = {name.rpartition(".")[0] for name in self.types if not name.endswith(".help")} - {""}
        self.classes: dict[Way, str] = {}
        self.values: dict[str, Any] = {}
        self.resumes = False

    def take(self, path: Way, value: Any, word: str | None) -> None:
        if path[0] in _OBJECTS:
            self._take_object(path[:1], path[1:], value)
        elif path[-1:] == ("resume",):
            self.resumes = True  # or not, by its value: then its checkpoint is looked at later
        else:
            self._take_plain(path, value, word)

    def check_ranges(self) -> None:
        for option, value in self.values.items():
            if problem := fault(option, _number(value)):
                raise ValueError(problem)

    def _take_plain(self, path: Way, value: Any, word: str | None) -> None:
        """An option that does not depend on a class."""
        name = ".".join(path)
        if name in self.groups:
            for way, inner in entries(value) if isinstance(value, Mapping) else ():
                self._take_plain((*path, *way), inner, word)
            if not isinstance(value, Mapping):  # another file
                self._forget(path)
        elif name in self.types:
            self.values[name] = value
            _check_word(name, self.types[name], value)
        elif not any(name.startswith(f"{other}.") for other in self.types.keys() - self.groups):
            raise ValueError(self._unknown(path, word))

    def _unknown(self, path: Way, word: str | None) -> str:
        group = next((g for g in (".".join(path[:end]) for end in range(len(path) - 1, 0, -1)) if g in self.groups), "")
        inside = [name.removeprefix(f"{group}.") for name in self.types if name.startswith(f"{group}.")]
        if word is None and group:
            return f"{group} has no option {path[-1]!r}{nearest(path[-1], inside)}"
        if word is None:
            return f"no option {'.'.join(path)!r}{nearest(path[0], OWN_GROUPS)}"
        trainer = [name.removeprefix("trainer.") for name in self.types if name.startswith("trainer.")]
        plain = [name for name in self.types if "." not in name and name not in ("h", "c", "help", "no_resume")]
        return f"no option {word!r}{nearest(path[-1], inside if group else [*trainer, *plain], silent=True)}"

    def _take_object(self, where: Way, rest: Way, value: Any) -> None:
        """An option of the object at a place, or the object itself."""
        rest = tuple(name for name in rest if name not in _WRAPPERS)
        if "dict_kwargs" in rest:
            return
        if rest in ((), ("class_path",)):
            self._take_class(where, value)
            return
        option = rest[0].removesuffix("+")
        place = (*where, option)
        kind, module = self._type_of(where, option)
        if rest[1:]:
            self._take_object(place, rest[1:], value)
            return
        self.values[".".join(place)] = value
        choices = words(kind, module) if kind else None
        if choices is not None:
            _check_choice(".".join(place), choices, value)
        elif not _check_word(".".join(place), kind, value):
            self._take_class(place, value)

    def _take_class(self, where: Way, value: Any) -> None:
        if isinstance(value, str) and value.startswith("{"):
            try:
                value = yaml.safe_load(value)
            except yaml.YAMLError:
                value = None
        if isinstance(value, str) and _CLASS.fullmatch(value):
            self._name_class(where, value)
        elif isinstance(value, Mapping) and value.keys() & {"class_path", "init_args"}:
            if "class_path" in value:
                self._name_class(where, value["class_path"])
            inner = value.get("init_args")
            for way, part in entries(inner) if isinstance(inner, Mapping) else ():
                self._take_object(where, way, part)
        else:
            self._forget(where)

    def _name_class(self, where: Way, name: Any) -> None:
        if name == self.classes.get(where):
            return
        self._forget(where)
        module, _, last = str(name).rpartition(".")
        known = names_in(module)
        if known is not None and last not in known and signature(str(name)) is None and last[:1].isupper():
            path, table = ".".join(where), {one: f"{module}.{one}" for one in known}
            raise ValueError(f"{path}: {module} has no class named {last!r}{nearest(last, table)}")
        self.classes[where] = str(name)

    def _type_of(self, where: Way, option: str) -> tuple[str, str]:
        """Type of an option, and where it is written; "" where it is not known."""
        owner = self.classes.get(where, "")
        told = signature(owner) if owner else None
        if told is None:
            return "", ""
        if option not in told.options and not told.is_open:
            names = [*told.options]
            raise ValueError(f"{'.'.join(where)}: {owner} has no option {option!r}{nearest(option, names)}")
        return told.options.get(option, ""), told.module

    def _forget(self, where: Way) -> None:
        begin = ".".join(where)
        self.classes = {path: name for path, name in self.classes.items() if path[: len(where)] != where}
        self.values = {name: value for name, value in self.values.items() if not f"{name}.".startswith(f"{begin}.")}


def _check_word(option: str, kind: str, value: Any) -> bool:
    """Whether the type is that of a plain value.

    Raises:
        ValueError: a word stands where a number, or true or false, belongs, or a number is too small.
    """
    match = _OR_NONE.fullmatch(kind)
    plain = next(filter(None, match.groups())) if match else kind
    if plain in _LEAST:
        plain, least, number = "int", _LEAST[plain], _number(value)
        if isinstance(number, int) and number < least:
            raise ValueError(f"{option} is {number}: give {least} or more")
    if plain in ("int", "float", "bool") and _is_word(value):
        raise ValueError(f"{option}: {value!r} is not of type {plain}")
    if plain.startswith("Literal["):
        _check_choice(option, words(plain, "") or (), value)
    return plain in ("int", "float", "bool", "str")


def _check_choice(option: str, choices: Sequence[str], value: Any) -> None:
    if choices and _is_word(value) and value not in choices:
        near = nearest(value, choices, silent=True)
        raise ValueError(f"{option}: {value!r} is not one of {', '.join(choices)}{near}")


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(_WORD.fullmatch(value)) and value.lower() not in _NOT_WORDS


def _number(value: Any) -> Any:
    """Text that is a number as one; all else as it is."""
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?\d+\.\d*(e[-+]?\d+)?", value):
        return float(value)
    return value
