"""Compares the config of a resumed run with its saved one: what has changed, and whether it may."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_FIXED = ("model", "data", "seed_everything", "seed_per_rank")
"""Sections that say what is trained on what."""

_FREE = ("batch_size", "num_workers", "download", "on_bad_image", "root", "lsp_root", "lspet_root")
"""Options of data that say how it is read, not what: a loader checks by itself whether a batch size can change."""


def check_changes(now: str, path: Path, with_defaults: str) -> list[str]:
    """Compares a config with that of the run which is to go on.

    Args:
        now: the config, as YAML.
        path: of the run's ``config.yaml``.
        with_defaults: the same file as it is read now, as YAML. It gives the options that the run's config lacks
            because they did not exist when the run began: they count as having had their defaults.

    Returns:
        Changes that will take effect, one line each.

    Raises:
        ValueError: something has changed that cannot change within a run: the network, its training or its data. The
            optimizer's state, with its learning rates, is in the checkpoint, so that a change would not even take
            effect.
    """
    try:
        then = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        return [f"{path} cannot be read, so changes in the config cannot be detected"]
    read, after = _flat(yaml.safe_load(with_defaults)), _flat(yaml.safe_load(now))
    # a class that has moved since stands in what is read under its name of today
    before = read | _flat(then) | {key: name for key, name in read.items() if key.endswith("class_path")}
    changes = {
        key: f"{key}: {_show(before.get(key))} -> {_show(after.get(key))}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    }
    fixed = [text for key, text in changes.items() if _is_fixed(key)]
    if fixed:
        others = f" and {len(fixed) - 1} more" if len(fixed) > 1 else ""
        raise ValueError(
            f"the config differs from that of the run in {path.parent}: {fixed[0]}{others}; go on with "
            f"--config {path}, or begin a new run in another --run_dir"
        )
    return list(changes.values())


def _is_fixed(key: str) -> bool:
    parts = key.split(".")
    return parts[0] in _FIXED and not (parts[0] == "data" and parts[-1] in _FREE)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {key: v for name, part in value.items() for key, v in _flat(part, f"{prefix}{name}.").items()}
    return {prefix.removesuffix("."): value}


def _show(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
    return text if len(text) <= 60 else text[:57] + "..."
