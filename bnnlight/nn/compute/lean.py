"""Activation checkpointing (`lean`): what lies between binary convolutions is computed again in the backward pass."""

from __future__ import annotations

import contextlib
import itertools
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
        self._entries: list[tuple[Tensor, Tensor]] = []
        self._next = 0

    def keep(self, weight_code: Tensor, sums: Tensor) -> None:
        """Keeps a layer's signs of W̃ and its sums."""
        self._entries.append((weight_code, sums))

    def next(self) -> tuple[Tensor, Tensor]:
        """What the next layer kept when it ran for the first time."""
        self._next += 1
        return self._entries[self._next - 1]

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """The segment runs for the first time."""
        self.replayed, self._entries = False, []
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
    segment, state = Record(), _state(module)
    contexts = segment.first(), _Anew(lambda: segment.again(module))

    def either(x: Tensor) -> Tensor:
        return _with_state(run, x, module, state) if segment.replayed else run(x)

    return checkpoint(either, x, use_reentrant=False, determinism_check="none", context_fn=lambda: contexts)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return dict(itertools.chain(module.named_parameters(), module.named_buffers()))


def _with_state(run: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module, state: dict[str, Tensor]) -> Tensor:
    """run(x) with the parameters that the module had as it ran first, which ``functional_call`` may have given it."""
    if all(parameter is state.get(name) for name, parameter in module.named_parameters()):
        return run(x)
    # what batch norms count goes into copies
    own = {f"module.{name}": t if t.requires_grad else t.clone() for name, t in state.items()}
    return functional_call(_Segment(run, module), own, (x,))


class _Segment(nn.Module):
    """A part of a network as a module, for ``functional_call``."""

    def __init__(self, run: Callable[[Tensor], Tensor], module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.run = (run,)  # in a tuple, or it would be a submodule where it is one

    def forward(self, x: Tensor) -> Tensor:
        return self.run[0](x)


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
    state = dict(latent.named_parameters())
    if not state:  # its weight is fixed
        return weight_of(latent)
    names, parameters = [*state], [*state.values()]
    with torch.no_grad():
        value = weight_of(latent) if needed else parameters[0].new_zeros(()).expand(latent.shape)
    return _Rebuilt.apply(latent, value, names, *parameters)
