"""The arguments of traced calls in one form, however the network's code has written them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import fx, nn

_FIRST = ("condition", "input", "tensors", "tensor")
"""What torch's functions call their first argument; `where` has two of these names."""

_OTHER_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "x1": "input", "x2": "other", "self": "input"}
"""Names that torch's functions and methods take for their own, numpy's most of them."""


def put_in_order(graph: fx.Graph, model: nn.Module) -> None:
    """Gives every call its first argument by place, modules all of them, and the others torch's own names, in place.

    Args:
        graph: of a network.
        model: the network.
    """
    for node in graph.nodes:
        if node.op == "call_module":
            bound = inspect.signature(model.get_submodule(node.target).forward).bind(*node.args, **node.kwargs)
            node.args, node.kwargs = bound.args, bound.kwargs
        elif node.op in ("call_function", "call_method"):
            named: dict[str, Any] = {_OTHER_NAMES.get(name, name): value for name, value in node.kwargs.items()}
            first = next((name for name in _FIRST if name in named and not node.args), None)
            node.args, node.kwargs = (*node.args, *([named.pop(first)] if first else ())), named
