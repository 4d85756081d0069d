"""From a network's code to the graph of what it does to one picture."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from bnnlight.deploy.freezing.arguments import put_in_order
from bnnlight.nn.compute.fixed_point import FixedPoint
from bnnlight.nn.compute.sync_norm import SyncBatchNorm
from bnnlight.nn.layers import BinaryConv2d, BinaryLinear
from bnnlight.nn.torch_internals import version

_OF_SHAPE = ("size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "is_floating_point")
"""Methods that look at how a tensor is laid out, not at what is in it."""


class _Known(fx.Proxy):
    """A stand-in that knows its value, so that code may look at shapes and decide by them."""

    def __init__(self, node: fx.Node, tracer: _Tracer, value: Any) -> None:
        super().__init__(node, tracer)
        self.value = value
        self.overwritten = False

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.value, name)
        if isinstance(attribute, Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return super().__getattr__(name) if callable(attribute) and name not in _OF_SHAPE else attribute

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[_Known]:
        return (self[index] for index in range(len(self.value)))

    def __getitem__(self, index: Any) -> _Known:
        if isinstance(index, str):
            raise TypeError(f"it takes a dictionary with {index!r}, not a picture")
        return super().__getitem__(index)

    # without these Python would take x += y for x = x + y, and other names of x would keep its old value
    def __iadd__(self, other: Any) -> _Known:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> _Known:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> _Known:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> _Known:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    """Records torch's own modules and binary layers as one node each, and runs each node as it is recorded.

    Parameters and buffers are themselves, not stand-ins: code may compute with them and decide by them.
    """

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.picture = picture
        self.proxies: list[_Known] = []
        self._running = False

    def create_args_for_root(self, root_fn: Callable, *rest: Any, **named: Any) -> tuple[Callable, list[Any]]:
        # one picture and no more: what else the network may be given stays at its default
        return root_fn, [self.root, self.create_proxy("placeholder", "picture", (), {})]

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        own = type(module) in (BinaryConv2d, BinaryLinear, FixedPoint, SyncBatchNorm)
        return own or super().is_leaf_module(module, path)

    def call_module(self, module: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        # inside a node there is nothing more to record
        return forward(*args, **kwargs) if self._running else super().call_module(module, forward, args, kwargs)

    def getattr(self, name: str, value: Any, cache: dict) -> Any:
        return value

    def create_arg(self, value: Any) -> Any:
        if isinstance(value, _Known) and value.overwritten:
            raise ValueError("a value is changed in place, and a view of it is used afterwards")
        return super().create_arg(value)

    def create_proxy(self, kind: str, target: Any, args: tuple, kwargs: dict, *rest: Any, **named: Any) -> Any:
        before = [version(proxy.value) if isinstance(proxy.value, Tensor) else 0 for proxy in self.proxies]
        value = self._run(kind, target, args, kwargs)
        node = super().create_proxy(kind, target, args, kwargs, *rest, **named).node
        if isinstance(value, Tensor):
            node.meta |= {"shape": tuple(value.shape), "dtype": value.dtype}
        elif isinstance(value, tuple | list) and value and all(isinstance(part, Tensor) for part in value):
            node.meta["parts"] = [tuple(part.shape) for part in value]
        for proxy, then in zip(self.proxies, before, strict=True):
            if isinstance(proxy.value, Tensor) and version(proxy.value) != then:
                # changed in place: whoever holds it now holds what this node made of it
                proxy.node, proxy.overwritten = node, not _same_view(proxy.value, value)
        self.proxies.append(_Known(node, self, value))
        return self.proxies[-1]

    def _run(self, kind: str, target: Any, args: tuple, kwargs: dict) -> Any:
        if kind == "placeholder":
            return self.picture
        args, kwargs = fx.node.map_aggregate((args, kwargs), lambda a: a.value if isinstance(a, _Known) else a)
        self._running = True
        try:
            if kind == "call_module":
                return self.root.get_submodule(target).forward(*args, **kwargs)
            if kind == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            return target(*args, **kwargs)
        finally:
            self._running = False


def _same_view(one: Tensor, other: Any) -> bool:
    where = [(t.shape, t.stride(), t.data_ptr()) for t in (one, other) if isinstance(t, Tensor)]
    return where[0] == where[-1]


@torch.no_grad()
def trace(model: nn.Module, input_shape: tuple[int, ...]) -> fx.Graph:
    """The graph of a network for one picture. Code that decides by shapes takes the way that this picture takes.

    Args:
        model: in eval mode. Its code is run once, on zeros.
        input_shape: ``(C, H, W)``.

    Returns:
        A graph whose nodes are torch's own modules, binary layers, functions and methods; each node's
        ``meta["shape"]`` and ``meta["dtype"]`` are those of its value, for a batch of one; ``meta["parts"]`` are the
        shapes where it is a row of tensors. Arguments are in one form:
        see :func:`bnnlight.deploy.freezing.arguments.put_in_order`. A value that is changed
        in place stands, from then on, for the node that changed it.

    Raises:
        ValueError: the network does not run on such a picture, or its code decides by what is in it.
    """
    like = next(model.parameters(), torch.zeros(()))
    picture = torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device)
    try:
        graph = _Tracer(picture).trace(model)
    except Exception as error:  # whatever the network's own code raises
        if isinstance(error, fx.proxy.TraceError):
            reason = "its code decides by what is in the picture"
        else:
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        size = "×".join(map(str, input_shape))
        raise ValueError(f"{type(model).__name__} cannot be followed on a picture of {size}: {reason}") from error
    # what leads nowhere: changes in place are part of the graph's edges by now
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
    put_in_order(graph, model)
    return graph
