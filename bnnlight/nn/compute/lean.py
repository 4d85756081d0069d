"""Training in less memory: what lies between convolutions is computed again in the backward pass."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from bnnlight.nn.compute.kept_weights import weight_of
from bnnlight.nn.compute.product import Replayed, full_precision
from bnnlight.nn.torch_internals import BatchNorm, transformed

_STATISTICS = "running_mean", "running_var", "num_batches_tracked"
_record: ContextVar[Record | None] = ContextVar("record", default=None)


class Record:
    """What the binary convolutions of one segment have computed, in their order.

    Attributes:
        replayed: whether the segment runs for the second time.
    """

    def __init__(self) -> None:
        self.replayed = False
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._next = 0

    def keep(self, kept_weight: Tensor, sums: Tensor) -> None:
        """Keeps a layer's signs of W̃ and its sums."""
        self._kept.append((kept_weight, sums))

    def next(self) -> tuple[Tensor, Tensor]:
        """What the next layer kept when it ran for the first time."""
        self._next += 1
        return self._kept[self._next - 1]

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """The segment runs for the first time."""
        self.replayed, self._kept = False, []
        token = _record.set(self)
        try:
            yield
        finally:
            _record.reset(token)

    @contextlib.contextmanager
    def again(self, module: nn.Module) -> Iterator[None]:
        """The segment of that module runs again; its batch norms do not count the batch twice."""
        self.replayed, self._next = True, 0
        norms = [norm for norm in module.modules() if isinstance(norm, BatchNorm) and norm.track_running_stats]
        buffers = [(norm, name, getattr(norm, name)) for norm in norms for name in _STATISTICS]
        for norm, name, buffer in buffers:
            setattr(norm, name, None if buffer is None else buffer.clone())
        token = _record.set(self)
        try:
            yield
        finally:
            _record.reset(token)
            for norm, name, buffer in buffers:
                setattr(norm, name, buffer)


def record() -> Record | None:
    """The record of the segment that is running; None outside of such."""
    return _record.get()


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> Tensor:
    """run(x), of which x and the sums of its binary convolutions are kept, as 16-bit integers, and nothing else.

    In the backward pass the rest is computed again: batch norms, signs, PReLUs, shortcuts, but no binary
    convolution and no latent weight. The result is the same bit for bit.

    Args:
        run: a part of a network.
        x: its input.
        module: whose part it is.
    """
    if not torch.is_grad_enabled() or transformed():
        return run(x)
    if torch.compiler.is_compiling():  # which cannot follow the record, and drops what it can compute again itself
        return checkpoint(run, x, use_reentrant=False)
    kept = Record()
    contexts = kept.first(), _Anew(lambda: kept.again(module))
    return checkpoint(run, x, use_reentrant=False, determinism_check="none", context_fn=lambda: contexts)


class _Anew(contextlib.AbstractContextManager):
    """A context manager for each time that it is entered: who keeps the graph may go backward twice."""

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._context = self._make()
        self._context.__enter__()

    def __exit__(self, *error: object) -> bool | None:
        return self._context.__exit__(*error)


class _Rebuilt(torch.autograd.Function):
    @staticmethod
    def forward(ctx, latent: nn.Module, value: Tensor, names: Sequence[str], *parameters: Tensor) -> Tensor:
        ctx.latent, ctx.names, ctx.buffers = latent, names, dict(latent.named_buffers())
        ctx.save_for_backward(*parameters)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        parameters = ctx.saved_tensors
        with torch.enable_grad(), full_precision(grad.device), Replayed():
            if all(map(operator.is_, parameters, ctx.latent.parameters())):
                weight = ctx.latent()
            else:  # the forward pass ran in functional_call, with other parameters than the latent's own
                state = ctx.buffers | dict(zip(ctx.names, parameters, strict=True))
                weight = functional_call(ctx.latent, state, ())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = iter(torch.autograd.grad(weight, trained, grad, allow_unused=True))
        return None, None, None, *(next(gradients) if p.requires_grad else None for p in parameters)


def rebuilt(latent: nn.Module, needed: bool) -> Tensor:
    """W̃, of which nothing is kept: what lies between it and the parameters is computed again in the backward pass.

    Args:
        latent: the layer's.
        needed: False where only the gradient's way to the latent is wanted, as a layer does that has its signs in
            the record; the entries are zeros then, in no memory.
    """
    names, parameters = zip(*latent.named_parameters(), strict=True)
    with torch.no_grad():
        value = weight_of(latent) if needed else parameters[0].new_zeros(()).expand(latent.shape)
    return _Rebuilt.apply(latent, value, names, *parameters)
