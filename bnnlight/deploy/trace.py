"""From a network's code to the graph of what it does to one picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from bnnlight.nn.layers import BinaryConv2d, BinaryLinear


class _Known(fx.Proxy):
    """A stand-in that knows its value, so that code may look at shapes and decide by them."""

    def __init__(self, node: fx.Node, tracer: fx.Tracer, value: Any) -> None:
        super().__init__(node, tracer)
        self.value = value

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return self.value.ndim

    def size(self, *dim: int) -> Any:
        return self.value.size(*dim)

    def dim(self) -> int:
        return self.value.dim()

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[_Known]:
        return (self[index] for index in range(len(self.value)))


class _Tracer(fx.Tracer):
    """Records torch's own modules and binary layers as one node each, and runs each node as it is recorded."""

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.picture = picture
        self._running = False

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return type(module) in (BinaryConv2d, BinaryLinear) or super().is_leaf_module(module, path)

    def call_module(self, module: nn.Module, forward: Any, args: tuple, kwargs: dict) -> Any:
        # inside a node there is nothing more to record
        return forward(*args, **kwargs) if self._running else super().call_module(module, forward, args, kwargs)

    def getattr(self, name: str, value: Any, cache: dict) -> Any:
        return value if self._running else super().getattr(name, value, cache)

    def create_proxy(self, kind: str, target: Any, args: tuple, kwargs: dict, *rest: Any, **named: Any) -> _Known:
        node = super().create_proxy(kind, target, args, kwargs, *rest, **named).node
        values = fx.node.map_aggregate((args, kwargs), lambda a: a.value if isinstance(a, _Known) else a)
        self._running = True
        try:
            value = self._run(kind, target, *values)
        finally:
            self._running = False
        node.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        return _Known(node, self, value)

    def _run(self, kind: str, target: Any, args: tuple, kwargs: dict) -> Any:
        if kind == "placeholder":
            return self.picture
        if kind == "call_module":
            return self.root.get_submodule(target).forward(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if kind == "get_attr":
            owner, _, name = target.rpartition(".")
            return getattr(self.root.get_submodule(owner), name)
        return target(*args, **kwargs)


@torch.no_grad()
def trace(model: nn.Module, input_shape: tuple[int, ...]) -> fx.Graph:
    """The graph of a network for one picture. Code that decides by shapes takes the way that this picture takes.

    Args:
        model: in eval mode.
        input_shape: ``(C, H, W)``.

    Returns:
        A graph whose nodes are torch's own modules, binary layers, functions and methods; each node's
        ``meta["shape"]`` is that of its value, for a batch of one.

    Raises:
        ValueError: the network does not run on such a picture, or its code decides by what is in it.
    """
    like = next(model.parameters())
    picture = torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device)
    try:
        return _Tracer(picture).trace(model)
    except (RuntimeError, TypeError, fx.proxy.TraceError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{type(model).__name__} cannot be followed on a picture of {'×'.join(map(str, input_shape))}: {reason}"
        ) from error
