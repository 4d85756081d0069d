"""In what the configs of several runs differ, and what the columns of a comparison are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bnnlight.tracking.metrics_file import is_figure

# places and what started a run differ always and say nothing
_IGNORED = ("bnnlight.", "run_dir", "resume", "ckpt_path", "config", "trainer.logger", "trainer.default_root_dir")
_ORDER = ("model.", "data.", "seed_everything", "trainer.")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config with one entry a leaf, the parts of its key joined by dots; a list of leaves is a leaf."""
    if isinstance(config, dict) and config:
        parts = (flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in config.items())
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(config, list) and any(isinstance(item, dict | list) for item in config):
        return flatten(dict(enumerate(config)), prefix)
    return {prefix: config} if prefix else {}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """A flat config without numbers in its keys: what stands in a list is named by its class.

    ``callbacks.0.class_path: x.Turn`` and ``callbacks.0.init_args.every: 1`` become ``callbacks: Turn`` and
    ``callbacks.Turn.init_args.every: 1``, so that runs with the same callback at other places are compared in one
    column. Of a class that stands in a list twice, the second is ``Turn[1]``; what has no class is ``callbacks[0]``.

    Args:
        config: of :func:`flatten`.
    """
    named: dict[str, str] = {"": ""}  # the parts before a place in the key, joined by dots → as they are shown
    lists: dict[str, list[str]] = {}  # a list, as it is shown → what stands in it
    shown: dict[str, Any] = {}
    for key, value in config.items():
        before, parts = "", key.split(".")
        for place, part in enumerate(parts):
            path = f"{before}.{part}" if before else part
            if path not in named:
                so_far = named[before]
                if part.isdigit() and place:
                    kind = config.get(f"{path}.class_path")
                    members = lists.setdefault(so_far, [])
                    named[path] = f"{so_far}[{part}]"
                    if isinstance(kind, str):
                        own = kind.rsplit(".", 1)[-1]
                        again = sum(member.split("[")[0] == own for member in members)
                        members.append(f"{own}[{again}]" if again else own)
                        named[path] = f"{so_far}.{members[-1]}"
                else:
                    named[path] = f"{so_far}.{part}" if so_far else part
            before = path
        in_list = len(parts) > 1 and parts[-1] == "class_path" and parts[-2].isdigit()
        if not in_list:
            shown[named[key]] = value
        elif (of := ".".join(parts[:-2])) in named:
            shown[named[of]] = ", ".join(lists[named[of]])
    return shown


def differences(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Keys in which configs differ, those that say most first.

    First those that all of the configs have, then those that only some have, as the options of a class that only some
    use; each model, data, then the rest. Null and an empty list are as good as not there.

    Args:
        configs: of :func:`settings`.
    """
    keys = dict.fromkeys(key for config in configs for key in config if not key.startswith(_IGNORED))
    texts = {key: [_comparable(config.get(key)) for config in configs] for key in keys}
    differing = [key for key in keys if len(set(texts[key])) > 1]
    place = {
        key: next((i for i, start in enumerate(_ORDER) if key.startswith(start)), len(_ORDER)) for key in differing
    }
    return sorted(differing, key=lambda key: ("" in texts[key], place[key]))


def _comparable(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return ""
    if is_figure(value):
        value = float(value)  # W&B's files have 1 where YAML has 1.0
    return json.dumps(value, sort_keys=True, default=str)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """As few of a key's last parts as tell it from the others, without the words every config has."""
    parts = {key: [part for part in key.split(".") if part not in ("init_args", "class_path")] or [key] for key in keys}
    short = {}
    for key in keys:
        for count in range(1, len(parts[key]) + 1):
            short[key] = ".".join(parts[key][-count:])
            if sum(".".join(other[-count:]) == short[key] for other in parts.values()) == 1:
                break
    return short


def as_text(key: str, value: Any) -> str:
    """A setting as it is shown: a class by its own name, nothing for what is not set."""
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).rsplit(".", 1)[-1] if key.endswith("class_path") else str(value)
