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

    Attributes:
        size: of a piece, ``(o, k, i)``.
        number: of pieces of a weight.
    """

    def __init__(self, shape: tuple[int, ...], limits: Mapping[int, int]) -> None:
        self._window = shape[2:]
        self._whole = (shape[0], math.prod(shape[2:]), shape[1])
        self._parts = tuple(math.ceil(n / limits.get(d, n)) for d, n in enumerate(self._whole))
        self.size = tuple(math.ceil(n / parts) for n, parts in zip(self._whole, self._parts, strict=True))
        self.number = math.prod(self._parts)
        self._fill = [parts * n for parts, n in zip(self._parts, self.size, strict=True)]

    def cut(self, x: Tensor) -> Tensor:
        """Weights ``(number, O, …, I)``, input channels last, as ``(number · pieces, o, k, i)``."""
        x = x.reshape(len(x), *self._whole)
        if self.number == 1:
            return x
        missing = [end for whole, filled in zip(self._whole, self._fill, strict=True) for end in (filled - whole, 0)]
        x = pad(x, missing[::-1]).view(len(x), *(n for pair in zip(self._parts, self.size, strict=True) for n in pair))
        # of a single weight reshaping may leave them as they lie
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, *self.size).contiguous()

    def join(self, x: Tensor) -> Tensor:
        """The reverse of :meth:`cut`."""
        if self.number > 1:
            x = x.view(-1, *self._parts, *self.size).permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, *self._fill)
            o, k, i = self._whole
            x = x[:, :o, :k, :i]
        return x.reshape(len(x), self._whole[0], *self._window, self._whole[2])
