"""What the backward pass keeps of a sign's input, in bits: one for the sign, one for whether its gradient passes.

Plain torch here is the reference, for any device. On CUDA :mod:`bnnlight.nn.compute.bits_triton` does the same, reading
each entry once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from bnnlight.nn.binarize import Gradient

WORD = 32
"""Bits of a word."""

_wanted: ContextVar[bool] = ContextVar("packed_activations", default=False)


@contextlib.contextmanager
def packed_activations(enabled: bool = True) -> Iterator[None]:
    """Binary convolutions within keep two bits of each activation for the backward pass, instead of a byte.

    With the ``identity`` gradient it is one bit. Results are the same bit for bit. It is off otherwise: on a CPU it
    costs more time than it is worth, and on GPUs ``benchmarks/gpu/acceptance.py`` measures whether it pays.
    """
    token = _wanted.set(enabled)
    try:
        yield
    finally:
        _wanted.reset(token)


def packs(gradient: Gradient) -> bool:
    """Whether a convolution of that gradient packs what it keeps; gradients with more than two values need X itself."""
    return _wanted.get() and gradient in ("identity", "clipped")


@dataclass(frozen=True)
class Layout:
    """Where the entries of a packed tensor lie.

    Attributes:
        shape: of the tensor.
        channels_last: whether entries follow each other in that order, else in rows.
    """

    shape: torch.Size
    channels_last: bool

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return cls(x.shape, last)

    def flat(self, x: Tensor) -> Tensor:
        """The entries of a tensor of this shape, ``(n,)``, in this order; a view where they lie so."""
        return (x.movedim(1, -1) if self.channels_last else x).flatten()

    def folded(self, entries: Tensor) -> Tensor:
        """The tensor whose entries these are."""
        if not self.channels_last:
            return entries.view(self.shape)
        n, c, h, w = self.shape
        return entries.view(n, h, w, c).movedim(-1, 1)

    def channel_step(self) -> int:
        """Entries of one channel that follow each other."""
        return 1 if self.channels_last else int(torch.Size(self.shape[2:]).numel())


def pack(x: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor | None]:
    """Bits of x, ``(⌈n / 32⌉,)`` int32 each: where sign(x) is −1, and where ``|x| <= 1``.

    Bit i of word w stands for entry 32 w + i in the order of :class:`Layout`. What is not a number counts as −1, and
    no gradient passes there, as in :func:`bnnlight.nn.binarize.encode_sign`. Of the gradient ``identity`` there is no
    second tensor.
    """
    entries = Layout.of(x).flat(x)
    kernels = _triton(x)
    if kernels is not None:
        return kernels.pack(entries, gradient == "clipped")
    return _words(~(entries >= 0)), _words(entries.abs() <= 1) if gradient == "clipped" else None


def normalize_and_pack(x: Tensor, scale: Tensor, shift: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor | None]:
    """Bits of a · x + b, in one pass on CUDA: a batch norm, the sign behind it and the packing.

    Computed in float32, the product rounded before the sum. It is not rounded to x's dtype, as a norm's own output
    would be, so that in half precision an entry within a rounding of ±1 may pass where it would not, or the reverse.

    Args:
        x: ``(N, C, H, W)`` or ``(N, C)``.
        scale, shift: a and b, ``(C,)``: of a batch norm γ / sqrt(var + ε) and β − a · mean.
        gradient: as :func:`pack` takes it.
    """
    layout = Layout.of(x)
    kernels = _triton(x)
    if kernels is not None:
        step = layout.channel_step()
        return kernels.normalize_and_pack(layout.flat(x), scale, shift, step, gradient == "clipped")
    along = [1, -1, *(1,) * (x.ndim - 2)]
    normalized = (x.float() * scale.float().view(along)).add_(shift.float().view(along))
    # in x's order, which arithmetic keeps
    return pack(layout.folded(layout.flat(normalized)), gradient)


def unpack_sign(negative: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
    """sign(x) as ±1 of that dtype, from the first of :func:`pack`'s."""
    number = layout.shape.numel()
    kernels = _triton(negative)
    if kernels is not None:
        return layout.folded(kernels.unpack_sign(negative, number, dtype))
    return layout.folded(1 - 2 * _entries(negative, number).to(dtype))


def gated(grad: Tensor, passes: Tensor | None, layout: Layout) -> Tensor:
    """grad where the gradient passes, and 0 elsewhere, from the second of :func:`pack`'s."""
    if passes is None:
        return grad
    entries = layout.flat(grad)
    kernels = _triton(grad)
    if kernels is not None:
        return layout.folded(kernels.gated(entries, passes))
    return layout.folded(torch.where(_entries(passes, len(entries)).bool(), entries, 0))


def _words(bits: Tensor) -> Tensor:
    number = -len(bits) % WORD
    rows = torch.nn.functional.pad(bits.to(torch.int64), (0, number)).view(-1, WORD)
    sums = (rows << torch.arange(WORD, device=bits.device)).sum(1)
    return torch.where(sums < 2**31, sums, sums - 2**32).to(torch.int32)


def _entries(words: Tensor, number: int) -> Tensor:
    """0 or 1 for each entry, int32 ``(number,)``."""
    bits = (words.unsqueeze(1) >> torch.arange(WORD, device=words.device, dtype=torch.int32)) & 1
    return bits.flatten()[:number]


def _triton(x: Tensor) -> ModuleType | None:
    """Kernels for x's device, where there are any."""
    if not x.is_cuda:
        return None
    try:
        from bnnlight.nn.compute import bits_triton
    except ImportError:  # torch for CUDA comes with triton on Linux alone
        return None
    return bits_triton
