"""`Pieces`: weights cut into blocks, each small enough for an eigenbasis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

OUTPUT, KERNEL, INPUT = 0, 1, 2
"""Dimensions of a piece: output channels, pixels of the kernel's window, input channels."""


class Pieces:
    """How weights of one shape, (O, I, …), are cut.

    A piece is (o, k, i): the window's pixels are one dimension, as they have one basis together. A dimension that is
    longer than a limit is cut into as few equal pieces as keep it; zeros fill the last one.

    Args:
        shape: of a weight, with two dimensions or more.
        limits: dimension of a piece → its largest size; others stay whole.
        as_matrix: whether a piece is (o, 1, k·i), some input channels with all their pixels as one dimension. The limit
            of input channels is that of this dimension, but for a window that is larger itself.

    Attributes:
        size: of a piece, ``(o, k, i)`` or ``(o, 1, k·i)``.
        number: of pieces of a weight.
    """

    def __init__(self, shape: tuple[int, ...], limits: Mapping[int, int], as_matrix: bool = False) -> None:
        self._window = shape[2:]
        self._whole = (shape[0], math.prod(shape[2:]), shape[1])
        if as_matrix:
            limits = {d: max(1, n // self._whole[KERNEL]) if d == INPUT else n for d, n in limits.items()}
        self._parts = tuple(math.ceil(n / limits.get(d, n)) for d, n in enumerate(self._whole))
        self._cut = tuple(math.ceil(n / parts) for n, parts in zip(self._whole, self._parts, strict=True))
        self.size = (self._cut[OUTPUT], 1, self._cut[KERNEL] * self._cut[INPUT]) if as_matrix else self._cut
        self.number = math.prod(self._parts)
        self._fill = [parts * n for parts, n in zip(self._parts, self._cut, strict=True)]
        # then pieces are views of a weight, and neither zeros nor a second copy are needed
        self._divides = self._fill == list(self._whole) and self._parts[KERNEL] == 1

    def cut(self, weights: Sequence[Tensor]) -> Tensor:
        """Weights (O, …, I), input channels last, as ``(number · pieces, *size)``, a copy."""
        if self._divides:
            whole = weights[0].new_empty(len(weights), *self._parts, *self._cut)
            for weight, place in zip(weights, self._in_place(whole), strict=True):
                place.copy_(self._apart(weight))
            return whole.view(-1, *self.size)
        x = torch.stack([weight.reshape(self._whole) for weight in weights])
        missing = [end for whole, filled in zip(self._whole, self._fill, strict=True) for end in (filled - whole, 0)]
        x = pad(x, missing[::-1]).view(len(x), *(n for pair in zip(self._parts, self._cut, strict=True) for n in pair))
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, *self.size).contiguous()

    def add(self, pieces: Tensor, weights: Sequence[Tensor], size: float) -> None:
        """Adds ``size`` times pieces, as :meth:`cut` makes them, to weights (O, …, I)."""
        if self._divides:
            changes = self._in_place(pieces.view(-1, *self._parts, *self._cut))
            for weight, change in zip(weights, changes, strict=True):
                self._apart(weight).add_(change, alpha=size)
            return
        x = pieces.view(-1, *self._parts, *self._cut).permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, *self._fill)
        o, k, i = self._whole
        for weight, change in zip(weights, x[:, :o, :k, :i], strict=True):
            weight.add_(change.reshape(weight.shape), alpha=size)

    def _apart(self, weight: Tensor) -> Tensor:
        """A view of a weight: (parts, o, …, parts, i)."""
        outputs, inputs = ((self._parts[d], self._cut[d]) for d in (OUTPUT, INPUT))
        return weight.unflatten(-1, inputs).unflatten(0, outputs)

    def _in_place(self, pieces: Tensor) -> Tensor:
        """The same view of pieces that lie one after the other, of all weights."""
        x = pieces.squeeze(2).unflatten(4, self._window) if self._window else pieces.squeeze(5).squeeze(2)
        return x.permute(0, 1, 3, *range(4, x.ndim - 1), 2, x.ndim - 1)
