"""Reads and checks the config files of a command line before they are parsed, so that an error names the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from bnnlight.console.shipped_configs import is_file

_OBJECTS = ("model", "data")
"""Sections that name a class, whose options another config may change."""
_SELDOM = ("flip_rates", "factor_ranks", "alphas", "activations", "bad_images", "step_time")
_INSTEAD = {
    **{name: f"to have it look hardly ever, give --{name}.interval 1000000000" for name in _SELDOM},
    "pictures": "to draw none, give --pictures.count 0",
    "heartbeat": "to have nobody watch, give --heartbeat.timeout_s null",
    "progress": "to show none, give --trainer.enable_progress_bar false",
    "checkpoint": "to write none, give --trainer.enable_checkpointing false",
    "last_checkpoint": "to write none, give --trainer.enable_checkpointing false",
    "lr_monitor": "to log nothing at all, give --trainer.logger false",
    "non_finite": "to go on for long, give --non_finite.action skip and a large --non_finite.max_skipped_in_a_row",
}
"""Callbacks that are always there → what to do in place of ``null``."""
_OFF = ("null", "None", "~", "false")
"""What is typed to have one no longer."""


def check_config_files(args: Sequence[str]) -> None:
    """Looks at the form of each file behind ``--config``, and at their order. A file that is missing is passed over.

    Args:
        args: the command line behind the verb.

    Raises:
        ValueError: a file is not a YAML, is empty, holds something else than options, or comes before the config whose
            options it changes; the message names it. Or a callback that is always there is to be null.
    """
    named: set[str] = set()
    for option, value in options_in(args):
        if option in (f"{name}{end}" for name in _OBJECTS for end in ("", ".class_path")):
            named.add(option.split(".")[0])
        if option in _INSTEAD and value in _OFF:
            raise ValueError(f"--{option} cannot be null or false: {_INSTEAD[option]}")
        if option != "config" or not is_file(value):
            continue
        content = read_config(Path(value))
        for name in [name for name in content if str(name).startswith("x-")]:
            raise ValueError(
                f"{value}: {name} is no option, as anchors need no place of their own: write &NAME where the value is "
                "used first, and *NAME where it is used again"
            )
        for name in [name for name in _INSTEAD if content.get(name, {}) in (None, False)]:
            raise ValueError(f"{value}: {name} cannot be null or false: {_INSTEAD[name]}")
        for name in _OBJECTS:
            section = content.get(name)
            if isinstance(section, dict) and "init_args" in section and "class_path" not in section:
                if name not in named:
                    raise ValueError(
                        f"{value} is an overlay: it changes options of a {name} that is not named yet. Give it after "
                        f"the config of the experiment, --config EXPERIMENT --config {value}"
                    )
            elif section:
                named.add(name)


def options_in(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options in their order, without dashes, with their values."""
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, is_joined, value = word.removeprefix("--").partition("=")
            yield name, value if is_joined else rest[0] if rest else ""


def read_config(file: Path) -> dict[str, Any]:
    """The options in a file.

    Raises:
        ValueError: it is not a YAML, is empty, holds something else than options, or has a name twice in one place; the
            message names it.
    """
    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        where = str(error).replace('in "<unicode string>", ', "at ")
        raise ValueError(f"{file} is not valid YAML: {' '.join(where.split())}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text, so it is not a config: {error}") from error
    if content is None:
        raise ValueError(f"{file} is empty: a config names a model, data and a trainer, see configs/quickstart.yaml")
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"{str(content)[:40]!r}"
        raise ValueError(f"{file} holds {kind}, where options belong, NAME: VALUE; see configs/quickstart.yaml")
    _check_each_once(file, yaml.compose(text, Loader=yaml.CSafeLoader))
    return content


def _check_each_once(file: Path, root: yaml.Node) -> None:
    """YAML's readers take the last of two equal names, and what stands under the first is lost without a word."""
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):  # an alias is the node that it names
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            nodes.append(value)
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                both = f"lines {lines[key.value]} and {line}"
                raise ValueError(f"{file} has {key.value} twice, in {both}: keep one of them")
            lines[key.value] = line
