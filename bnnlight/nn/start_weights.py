"""Reads the weights that a network is started from, as several programs save them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BACKBONE = "backbone."
"""What the names of a network's weights begin with in a checkpoint of ``bnnlight fit``."""
WRAPPERS = ("module.", "_orig_mod.")
"""What wrapped networks put in front of all names: DataParallel and DDP, ``torch.compile``."""
CONTAINERS = ("state_dict", "model", "model_state_dict", "network", "net")
"""Names under which files hold the weights: Lightning's and mmpose's first, then those of other training scripts."""


def read_weights(path: str, own: Collection[str]) -> dict[str, Tensor]:
    """What a file has for a network with entries of some names.

    Args:
        path: of a checkpoint of ``bnnlight fit``, a ``state_dict``, or a dictionary that holds one under a name of
            :data:`CONTAINERS`. ``module.`` and ``_orig_mod.`` in front of all names are taken away.
        own: the names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds no network's weights.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        text = "fit needs it to begin a run and to go on with one; the other verbs do without"
        raise FileNotFoundError(f"checkpoint to start from not found: {path} ({text})")
    try:
        state = _inside(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        raise ValueError(f"{path} is not a checkpoint to start from, or is damaged") from error
    if state is None:
        raise ValueError(f"{path} is not a checkpoint to start from: it holds no network's weights")
    return _named_as(_named_as(state, own), own)


def _inside(content: Any) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    return next((state for name in CONTAINERS if (state := _inside(content.get(name))) is not None), None)


def _named_as(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """The state without what other programs put in front of its names; a network may have such names itself."""
    for prefix in (*WRAPPERS, BACKBONE, *WRAPPERS):
        theirs = [name for name in state if name.startswith(prefix)]
        # a task has other entries beside its network's; a wrapper is in front of all
        if (
            theirs
            and not any(name.startswith(prefix) for name in own)
            and (prefix == BACKBONE or len(theirs) == len(state))
        ):
            state = {name.removeprefix(prefix): state[name] for name in theirs}
    return state
