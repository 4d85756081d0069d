"""Runs a network once, to see what its layers do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it a model is in eval mode and not compiled; afterwards each module is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    # torch.compile would compile for this one run; torch before 2.6 knows no other way
    stance = getattr(torch.compiler, "set_stance", None)
    try:
        with stance("force_eager") if stance else contextlib.nullcontext():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def blank(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """One picture ``(1, C, H, W)`` of zeros, of the dtype and on the device of a model's parameters."""
    like = next(model.parameters(), torch.zeros(()))
    return torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype)
