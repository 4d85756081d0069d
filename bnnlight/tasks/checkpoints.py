"""Reads checkpoints, and checks that they fit a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint, on the CPU. Loading runs no code from the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint, is damaged, or holds more than plain data.
    """
    content = read_saved(path)
    if not isinstance(content.get("state_dict"), dict):
        raise ValueError(f"{path} is not a checkpoint of bnnlight fit, or is damaged")
    return content


def read_saved(path: str | Path) -> dict[str, Any]:
    """What ``torch.save`` wrote, a checkpoint or a plain ``state_dict``, on the CPU; no code from the file is run.

    Raises:
        FileNotFoundError: there is no such file, or it is a folder.
        ValueError: it is damaged, or holds more than plain data under names.
    """
    if Path(path).is_dir():
        raise FileNotFoundError(f"{path} is a folder: name a checkpoint, such as RUN/checkpoints/best.ckpt of a run")
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint not found: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content.keys()
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        raise ValueError(f"{path} is not a checkpoint of bnnlight fit, or is damaged") from error
    return content


def check_fits(state: dict[str, Tensor], model: nn.Module, path: str | Path) -> None:
    """Makes sure that a checkpoint's weights are those of this network.

    Raises:
        ValueError: entries are missing, unknown or of different sizes; the message counts them and names the
            first of each kind.
    """
    own = model.state_dict()
    lacking = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    resized = [name for name in own if name in state and own[name].shape != state[name].shape]
    parts = []
    for what, names in (("lacks", lacking), ("also has", unknown)):
        if names:
            parts.append(f"it {what} {_entries(names)} (first {names[0]})")
    if resized:
        name = resized[0]
        theirs, ours = ("×".join(map(str, t[name].shape)) or "()" for t in (state, own))
        parts.append(f"{_entries(resized)} with a different size (first {name}: {theirs}, the config's {ours})")
    if not parts:
        return
    # another head is what most people mean by this
    few = resized and not (lacking or unknown) and len(resized) < len(own) / 2
    advice = "; to start from all other parts: bnnlight.nn.start_from with leave_out, docs/recipes.md" if few else ""
    raise ValueError(f"{path} holds a different network from the config's: {'; '.join(parts)}{advice}")


def _entries(names: list[str]) -> str:
    return "1 entry" if len(names) == 1 else f"{len(names)} entries"
