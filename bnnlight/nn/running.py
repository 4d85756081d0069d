"""Runs a network once, to see what its layers do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from bnnlight.nn.torch_internals import forward_hooks

__all__ = ["blank", "evaluating", "forward_hooks", "run_once", "uncompiled"]


def uncompiled() -> contextlib.AbstractContextManager[object]:
    """Within it nothing runs compiled: ``torch.compile`` does not see hooks that are new, and torch before 2.6 knows no
    way to leave it out."""
    stance = getattr(torch.compiler, "set_stance", None)
    return stance("force_eager") if stance else contextlib.nullcontext()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it a model is in eval mode and not compiled; afterwards each module is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with uncompiled():  # it would be compiled for this one run
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def run_once(
    model: nn.Module, input_shape: Sequence[int], paths: Sequence[str], look: Callable[[str, Tensor], None]
) -> None:
    """Runs a model on one :func:`blank` picture, in eval mode and without gradients.

    Args:
        model: any network.
        input_shape: ``(C, H, W)`` of the picture.
        paths: of modules whose outputs are looked at.
        look: called with path and output, as often as the module runs.
    """

    def note(path: str) -> Callable[..., None]:
        return lambda module, args, output: look(path, output)

    hooks = [model.get_submodule(path).register_forward_hook(note(path)) for path in paths]
    try:
        with torch.no_grad(), evaluating(model):
            model(blank(model, input_shape))
    finally:
        for hook in hooks:
            hook.remove()


def blank(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """One picture ``(1, C, H, W)`` of zeros, of the dtype and on the device of a model's parameters."""
    like = next(model.parameters(), torch.zeros(()))
    return torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype)
