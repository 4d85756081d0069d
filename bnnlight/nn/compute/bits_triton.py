"""The kernels of :mod:`bnnlight.nn.compute.bits` in Triton: each reads its entries once and writes words of 32 bits.

Entries are flat, ``(n,)``, in the order in which they lie. Each program takes a block of words. Tests run them on a
CPU, by Triton's interpreter, against the plain code.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 32
"""Words of a program: 1024 entries."""


@triton.jit
def _words(bits):
    """Words of 32 bits each, of a block ``(words, 32)`` of 0 and 1."""
    return tl.sum(bits.to(tl.int32) << tl.arange(0, 32)[None, :], axis=1)


@triton.jit
def _offsets(BLOCK: tl.constexpr):
    words = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return words, words[:, None] * 32 + tl.arange(0, 32)[None, :]


@triton.jit
def _store(x, inside, words, number_words, negative_ptr, passes_ptr, CLIPPED: tl.constexpr):
    # what is not a number is neither above nor below: −1, and no gradient
    tl.store(negative_ptr + words, _words(inside & ((x >= 0) == 0)), mask=words < number_words)
    if CLIPPED:
        tl.store(passes_ptr + words, _words(inside & (tl.abs(x) <= 1)), mask=words < number_words)


@triton.jit
def _pack(x_ptr, negative_ptr, passes_ptr, number, number_words, CLIPPED: tl.constexpr, BLOCK: tl.constexpr):
    words, offsets = _offsets(BLOCK)
    inside = offsets < number
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0)
    _store(x, inside, words, number_words, negative_ptr, passes_ptr, CLIPPED)


@triton.jit
def _normalize_and_pack(
    x_ptr,
    scale_ptr,
    shift_ptr,
    negative_ptr,
    passes_ptr,
    number,
    number_words,
    channels,
    step,
    CLIPPED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    words, offsets = _offsets(BLOCK)
    inside = offsets < number
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0)
    channel = (offsets // step) % channels
    scale = tl.load(scale_ptr + channel, mask=inside, other=0.0)
    shift = tl.load(shift_ptr + channel, mask=inside, other=0.0)
    _store(x.to(tl.float32) * scale + shift, inside, words, number_words, negative_ptr, passes_ptr, CLIPPED)


@triton.jit
def _unpack_sign(negative_ptr, sign_ptr, number, number_words, BLOCK: tl.constexpr):
    words, offsets = _offsets(BLOCK)
    word = tl.load(negative_ptr + words, mask=words < number_words, other=0)
    bits = (word[:, None] >> tl.arange(0, 32)[None, :]) & 1
    # by way of float32: Triton 3.8's interpreter takes an integer's bits for those of a bfloat16
    sign = (1 - 2 * bits).to(tl.float32)
    tl.store(sign_ptr + offsets, sign.to(sign_ptr.dtype.element_ty), mask=offsets < number)


@triton.jit
def _gate(grad_ptr, passes_ptr, out_ptr, number, number_words, BLOCK: tl.constexpr):
    words, offsets = _offsets(BLOCK)
    inside = offsets < number
    grad = tl.load(grad_ptr + offsets, mask=inside, other=0.0)
    word = tl.load(passes_ptr + words, mask=words < number_words, other=0)
    bits = (word[:, None] >> tl.arange(0, 32)[None, :]) & 1
    tl.store(out_ptr + offsets, tl.where(bits != 0, grad, 0.0), mask=inside)


def pack(entries: Tensor, clipped: bool) -> tuple[Tensor, Tensor | None]:
    """As :func:`bnnlight.nn.compute.bits.pack`, of flat entries."""
    negative, passes, grid = _outputs(entries, clipped)
    if len(negative):
        _pack[grid](entries, negative, passes, len(entries), len(negative), CLIPPED=clipped, BLOCK=_BLOCK)
    return negative, passes if clipped else None


def normalize_and_pack(
    entries: Tensor, scale: Tensor, shift: Tensor, step: int, clipped: bool
) -> tuple[Tensor, Tensor | None]:
    """As :func:`bnnlight.nn.compute.bits.normalize_and_pack`, of flat entries.

    Args:
        entries: ``(n,)``.
        scale, shift: ``(C,)``.
        step: entries of one channel that follow each other.
        clipped: whether the second tensor is wanted.
    """
    negative, passes, grid = _outputs(entries, clipped)
    if len(negative):
        scale, shift = scale.float().contiguous(), shift.float().contiguous()
        # without fused multiply-add, as the plain code rounds the product
        _normalize_and_pack[grid](
            *(entries, scale, shift, negative, passes, len(entries), len(negative), len(scale), step),
            CLIPPED=clipped,
            BLOCK=_BLOCK,
            enable_fp_fusion=False,
        )
    return negative, passes if clipped else None


def unpack_sign(negative: Tensor, number: int, dtype: torch.dtype) -> Tensor:
    """±1 of that dtype, ``(number,)``."""
    sign = torch.empty(number, device=negative.device, dtype=dtype)
    if number:
        _unpack_sign[_grid(len(negative))](negative, sign, number, len(negative), BLOCK=_BLOCK)
    return sign


def gated(entries: Tensor, passes: Tensor) -> Tensor:
    """Entries whose bit is 1, and 0 elsewhere."""
    entries = entries.contiguous()
    out = torch.empty_like(entries)
    if len(entries):
        _gate[_grid(len(passes))](entries, passes, out, len(entries), len(passes), BLOCK=_BLOCK)
    return out


def _grid(number_words: int) -> tuple[int]:
    return (triton.cdiv(number_words, _BLOCK),)


def _outputs(entries: Tensor, clipped: bool) -> tuple[Tensor, Tensor, tuple[int]]:
    negative = torch.empty(triton.cdiv(len(entries), 32), device=entries.device, dtype=torch.int32)
    # without a second one the kernel does not touch its pointer
    return negative, torch.empty_like(negative) if clipped else negative, _grid(len(negative))
