"""Products of two matrices from which weights are rebuilt, by the quicker library, with gradients."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnnlight.nn.compute.kernels import mm_by_onednn
from bnnlight.nn.torch_internals import transformed

SMALL = 2**21
"""Multiply-adds below which a call costs more than what the quicker library saves."""

_replayed: ContextVar[bool] = ContextVar("product_replayed", default=False)


class Replayed(contextlib.AbstractContextManager):
    """Within it a latent runs again for its gradients alone, and products marked as the last are not computed.

    May be entered several times, one after the other: who keeps the graph may go backward twice.
    """

    def __enter__(self) -> None:
        self._token = _replayed.set(True)

    def __exit__(self, *error: object) -> None:
        _replayed.reset(self._token)


def replaying() -> bool:
    """Whether a latent runs again for its gradients alone: what W̃ is, nobody looks at then."""
    return not torch.compiler.is_compiling() and _replayed.get()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, last: bool, dtype: torch.dtype | None) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.dtype = dtype
        if last and replaying():
            return a.new_zeros(()).expand(len(a), b.shape[1])  # in no memory
        return times_transpose(a, b.T, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (a, b), dtype = ctx.saved_tensors, ctx.dtype
        to_a = times_transpose(grad, b, dtype) if ctx.needs_input_grad[0] else None
        to_b = None
        if ctx.needs_input_grad[1]:
            # laid out as b is, or a parameter's gradient is laid out anew
            to_b = times_transpose(grad.T, a.T, dtype).T if b.stride(0) == 1 else times_transpose(a.T, grad.T, dtype)
        return to_a, to_b, None, None


def times_transpose(a: Tensor, b: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """a bᵀ of two matrices, without gradient, each of them in any layout; of the type of ``a``.

    By oneDNN where that takes it, which on processors without Intel's name is quicker than MKL by up to a half.

    Args:
        a: ``(m, k)``, of any type; on a CPU if it is in single precision and ``dtype`` is None.
        b: ``(n, k)``.
        dtype: of the factors, whose products are added up in single precision; None: that of ``a``.
    """
    if dtype is not None:
        return torch.mm(a.to(dtype), b.T.to(dtype)).to(a.dtype)
    if a.dtype != torch.float32 or a.shape[0] * b.numel() < SMALL or transformed():
        return a @ b.T
    return mm_by_onednn(a, b)


def product(a: Tensor, b: Tensor, last: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    """a @ b for two matrices, by the quicker of the libraries that torch has on a CPU.

    Args:
        a: ``(m, k)``.
        b: ``(k, n)``.
        last: whether what follows until W̃ only lays the entries out anew. Where a latent is computed again in the
            backward pass, this product is then left out.
        dtype: of the factors, here and in the backward pass; their products are added up in single precision, and sums
            come in the type of ``a``. None: that of ``a``.
    """
    if dtype is None and (a.device.type != "cpu" or a.dtype != torch.float32):
        return a @ b
    if transformed():
        return times_transpose(a, b.T, dtype)
    return _Product.apply(a, b, last, dtype)


def factor_dtype(products: str, owner: str) -> torch.dtype | None:
    """The type that an option ``products`` stands for, as :func:`product` takes it.

    Args:
        products: ``float32`` leaves factors as they are, ``bfloat16`` rounds them.
        owner: name of the latent or optimizer that has the option, for the error message.

    Raises:
        ValueError: it is neither.
    """
    if products not in ("float32", "bfloat16"):
        raise ValueError(f"products of {owner} is {products!r}: choose float32 or bfloat16")
    return torch.bfloat16 if products == "bfloat16" else None


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Leaves autocast: a weight rebuilt in bfloat16 would get other signs than the exported one."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
