"""Parameter groups of equal options as one for the length of a step, since each group costs time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]

_OF_A_GROUP = ("params", "name", "lr_scale", "added", "added_scale")
"""What may tell groups apart that are otherwise stepped alike."""


class MergedGroups:
    """Groups of equal options as one each.

    Args:
        groups: of an optimizer.
        as_tensors: whether rates become tensors: a step that is compiled with a number is compiled anew for each other
            one.

    Attributes:
        together: the groups to be stepped.
    """

    def __init__(self, groups: list[Group], as_tensors: bool = False) -> None:
        alike: dict[Any, list[Group]] = {}
        for group in groups:
            try:
                key = frozenset((name, value) for name, value in group.items() if name not in _OF_A_GROUP)
                alike.setdefault(key, []).append(group)
            except TypeError:  # an option that cannot be compared
                alike[id(group)] = [group]
        self._members = list(alike.values())
        self.together = [
            members[0] if len(members) == 1 else members[0] | {"params": [p for g in members for p in g["params"]]}
            for members in self._members
        ]
        self._kept = _OF_A_GROUP
        if as_tensors:
            self._kept = (*_OF_A_GROUP, "lr")
            self.together = [group | {"lr": _as_tensor(group["lr"])} for group in self.together]

    def hand_back(self) -> None:
        """Gives the groups what the step wrote to those that stood for them: some optimizers keep numbers there."""
        for group, members in zip(self.together, self._members, strict=True):
            for member in members:
                member.update((key, value) for key, value in group.items() if key not in self._kept)


def _as_tensor(rate: float | Tensor) -> Tensor:
    return rate if isinstance(rate, Tensor) else torch.tensor(rate, dtype=torch.float64)
