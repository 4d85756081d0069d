"""Makes a model's factories of optimizers and schedules shareable, so that the model can be copied."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn


class Factory(functools.partial):
    """A partial call that copies of its owner share.

    jsonargparse 4.53 hands over an optimizer or a schedule as a partial call that refers to the parser, which refers to
    open files: it cannot be copied, and so no model that keeps it. Callbacks that average weights copy the model.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Factory:
        return self


def share_factories(model: nn.Module) -> None:
    """Makes a model that a config has named one that can be copied, in place."""
    for module in model.modules():
        for name, value in vars(module).items():
            if type(value) is functools.partial:
                setattr(module, name, Factory(value))
