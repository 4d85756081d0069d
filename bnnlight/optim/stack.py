"""`Stack`: parameters of one shape, stepped as one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Stack:
    """Parameters of one shape with a tensor for all of their gradients, and one for each entry of their states.

    A small network's step is mostly call overhead: one call for all layers of a shape takes a fraction of the time of
    one each.

    Args:
        params: of one shape, dtype and device.
        order: of dimensions, in which gradients and entries that have the shape of a parameter are laid out.
    """

    def __init__(self, params: Sequence[Tensor], order: Sequence[int]) -> None:
        self.params, self.order = list(params), tuple(order)
        self._back = tuple(torch.tensor(self.order).argsort().tolist())
        self._whole: dict[str, Tensor] = {}

    def gradients(self) -> list[Tensor]:
        """Views of the gradients, each in the order of this stack's dimensions."""
        return [p.grad.permute(self.order) for p in self.params]

    def weights(self) -> list[Tensor]:
        """Views of the parameters, likewise."""
        return [p.detach().permute(self.order) for p in self.params]

    def shrink(self, share: float) -> None:
        """Subtracts a share of every entry."""
        for p in self.params if share else ():
            p.mul_(1 - share)

    def as_params(self, whole: Tensor) -> list[Tensor]:
        """Views of the parts of such a tensor, each of a parameter's shape."""
        return [part.permute(self._back) for part in whole]

    def entry(
        self, states: Sequence[dict[str, Any]], name: str, make: Callable[[], Tensor], is_shaped: bool = False
    ) -> Tensor:
        """One entry of all parameters' states, as one tensor that the states hold the parts of.

        Args:
            states: of the parameters, in their order.
            name: of the entry.
            make: makes it, where states have none yet.
            is_shaped: whether a state's part has the shape of its parameter.
        """
        whole = self._whole.get(name)
        if whole is None or not self._is_held(states, name, whole):
            if name in states[0]:
                parts = [state[name].permute(self.order) if is_shaped else state[name] for state in states]
                whole = torch.stack(parts).contiguous()
            else:
                whole = make()
            self._whole[name] = whole
            for state, part in zip(states, self.as_params(whole) if is_shaped else whole, strict=True):
                state[name] = part
        return whole

    def leave(self, states: Sequence[dict[str, Any]]) -> None:
        """Copies the parts that states still hold, so that none of them keeps the memory of all.

        Args:
            states: of the parameters, in their order.
        """
        for name, whole in self._whole.items():
            for state, part in zip(states, whole, strict=True):
                if name in state and state[name].data_ptr() == part.data_ptr():
                    state[name] = state[name].clone()

    @staticmethod
    def _is_held(states: Sequence[dict[str, Any]], name: str, whole: Tensor) -> bool:
        """Whether the states' own tensors are the parts: a loaded or moved state has others."""
        ours = (part.data_ptr() for part in whole)
        return all(name in s and s[name].data_ptr() == our for s, our in zip(states, ours, strict=True))
