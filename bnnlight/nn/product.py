"""Matrix products that weights are rebuilt with."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALL = 2**21
"""Multiply-adds below which a call costs more than what the quicker library saves."""


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return times_transpose(a, b.T)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        to_a = times_transpose(grad, b) if ctx.needs_input_grad[0] else None
        to_b = None
        if ctx.needs_input_grad[1]:
            if b.stride(0) == 1:
                to_b = (grad.T @ a).T  # laid out as b is, or a parameter's gradient is laid out anew
            elif a.numel() < grad.numel():
                to_b = times_transpose(a.T.contiguous(), grad.T)
            else:
                to_b = a.T @ grad  # to lay out a large matrix anew costs more than is won
        return to_a, to_b


def times_transpose(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ of two matrices on a CPU, without gradient.

    By oneDNN where that takes it, which on processors without Intel's name is quicker than MKL by up to a half.
    """
    if a.dtype != torch.float32 or a.shape[0] * b.numel() < SMALL or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return a @ b.T
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for two matrices, by the quicker of the libraries that torch has on a CPU; in single precision.

    Args:
        a: ``(m, k)``.
        b: ``(k, n)``.
    """
    if a.device.type != "cpu" or a.dtype != torch.float32:
        return a @ b
    return _Product.apply(a, b)


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Leaves autocast: a weight rebuilt in bfloat16 would get other signs than the exported one."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
