"""Weights cut into pieces that are small enough for a basis."""

from __future__ import annotations

import math
from collections.abc import Mapping

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

    def cut(self, x: Tensor) -> Tensor:
        """Weights ``(number, O, …, I)``, input channels last, as ``(number · pieces, *size)``."""
        x = x.reshape(len(x), *self._whole)
        if self.number == 1:
            return x.reshape(-1, *self.size)
        missing = [end for whole, filled in zip(self._whole, self._fill, strict=True) for end in (filled - whole, 0)]
        x = pad(x, missing[::-1]) if any(missing) else x  # which copies in any case
        x = x.view(len(x), *(n for pair in zip(self._parts, self._cut, strict=True) for n in pair))
        # of a single weight reshaping may leave them as they lie
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, *self.size).contiguous()

    def join(self, x: Tensor) -> Tensor:
        """The reverse of :meth:`cut`."""
        if self.number > 1:
            x = x.view(-1, *self._parts, *self._cut).permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, *self._fill)
            o, k, i = self._whole
            x = x[:, :o, :k, :i]
        return x.reshape(len(x), self._whole[0], *self._window, self._whole[2])
