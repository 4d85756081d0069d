"""A cache of rebuilt weights W̃, for code that calls an unchanged network many times; by default nothing is kept."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class _Entry:
    """W̃, and what it was rebuilt from."""

    weight: Tensor
    tensors: list[Tensor]
    places: list[tuple[torch.dtype, torch.device]]


_weights: ContextVar[dict[nn.Module, _Entry] | None] = ContextVar("kept_weights", default=None)


@contextlib.contextmanager
def weights_kept() -> Iterator[None]:
    """Within it each latent rebuilds W̃ once, for any number of forward passes of any networks.

    For networks that are called many times unchanged, in train or eval mode; gradients reach the factors as usual. It
    takes the memory of the binary layers' weights. What is written to a parameter within it goes unnoticed, in whatever
    way it is written; a parameter that is replaced (as by ``torch.func.functional_call``), moved or cast is noticed.
    For example::

        with weights_kept(), torch.inference_mode():
            for batch in batches:
                network(batch)
    """
    weights = KeptWeights()
    weights.begin()
    with weights.used():
        yield


class KeptWeights:
    """W̃ of each latent, from :meth:`begin` to :meth:`end`, for code that is called batch by batch, as a task's steps.

    While gradients are gathered for an optimizer step, for example::

        weights = KeptWeights()
        weights.follow(optimizer)
        weights.begin()
        for batch in batches:
            with weights.used():
                loss = network(batch)
            loss.backward()
        optimizer.step()
    """

    def __init__(self) -> None:
        self._keeps = False
        self._weights: dict[nn.Module, _Entry] = {}

    def begin(self, keep: bool = True) -> None:
        """Drops the weights from before, and keeps new ones from now on; or none."""
        self._keeps = keep
        self._weights.clear()

    def end(self) -> None:
        """Drops the weights, and keeps none from now on."""
        self.begin(keep=False)

    def follow(self, optimizer: Optimizer) -> None:
        """Drops the weights after each step of the optimizer, which changes them."""
        optimizer.register_step_post_hook(self._let_go)

    def follow_loads(self, module: nn.Module) -> None:
        """Drops the weights after each ``load_state_dict`` of the module, which changes them."""
        module.register_load_state_dict_post_hook(self._let_go)

    def _let_go(self, *_: object) -> None:
        self._weights.clear()

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Within it layers take the weights that are kept, and keep those that are not there yet."""
        token = _weights.set(self._weights if self._keeps else _weights.get())
        try:
            yield
        finally:
            _weights.reset(token)


def weight_of(latent: nn.Module) -> Tensor:
    """W̃ of a latent, to be called without gradients: kept, or rebuilt."""
    weights = _weights.get()
    if weights is None:
        return latent()
    tensors = [*itertools.chain(latent.parameters(), latent.buffers())]
    places = [(tensor.dtype, tensor.device) for tensor in tensors]
    entry = weights.get(latent)
    same = entry and entry.places == places and all(a is b for a, b in zip(tensors, entry.tensors, strict=True))
    if not same:
        # a tensor of inference mode could not be used by a later call outside of it
        with torch.inference_mode(False), torch.no_grad():
            entry = weights[latent] = _Entry(latent(), tensors, places)
    return entry.weight
