"""Weights rebuilt once for all batches of an optimizer step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from torch import Tensor, nn
from torch.optim import Optimizer

_weights: ContextVar[dict[nn.Module, Tensor] | None] = ContextVar("weights_of_a_step", default=None)


class KeptWeights:
    """W̃ of each latent, from the first batch of an optimizer step to the last, between which no parameter changes.

    It takes the memory of the binary layers' weights in single precision, and saves rebuilding them in the forward
    passes of all batches but the first. Gradients are taken back to the factors batch by batch, as ever::

        kept = KeptWeights()
        kept.follow(optimizer)
        kept.begin(len(batches))
        for batch in batches:
            with kept.used():
                loss = network(batch)
            loss.backward()
        optimizer.step()
    """

    def __init__(self) -> None:
        self._active = False
        self._weights: dict[nn.Module, Tensor] = {}

    def follow(self, optimizer: Optimizer) -> None:
        """Lets go of the weights now, and after each step of the optimizer that changes them."""
        self._weights.clear()
        optimizer.register_step_post_hook(lambda *_: self._weights.clear())

    def begin(self, batches_a_step: int) -> None:
        """Sets how many batches an optimizer step has from now on: with a single one nothing is kept."""
        self._weights.clear()
        self._active = batches_a_step > 1

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Within it layers that are trained take the weights that are kept, and keep those that are not there yet."""
        token = _weights.set(self._weights if self._active else None)
        try:
            yield
        finally:
            _weights.reset(token)


def weight_of(latent: nn.Module) -> Tensor:
    """W̃ of a latent, to be called without gradients: kept, or rebuilt."""
    kept = _weights.get()
    if kept is None:
        return latent()
    if latent not in kept:
        kept[latent] = latent()
    return kept[latent]
