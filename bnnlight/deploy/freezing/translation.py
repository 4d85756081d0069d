"""The steps made so far of a traced network, and the names of its nodes' values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bnnlight.deploy.program import INPUT, Shape, Step


class Unsupported(ValueError):
    """A layer or function that no operation of a program stands for."""


class Translation:
    """Collects steps.

    Args:
        model: the network, in eval mode, on the CPU, float32.

    Attributes:
        steps: made so far.
        values: node of the graph → name of its value.
        grouped: node → number of groups, where it only has the channels of a value in groups, (C, H, W) as
            (groups, C/groups, H, W); negative once groups and channels have changed places. A shuffle takes such.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.steps: list[Step] = []
        self.values: dict[fx.Node, str] = {}
        self.grouped: dict[fx.Node, int] = {}
        self._taken = {INPUT}

    def step(self, name: str, op: str, *inputs: str, settings: dict | None = None, **tensors: Any) -> str:
        """Appends a step and gives the name of its value. Tensors that are None are left out."""
        base, count = name, 1
        while name in self._taken:
            count += 1
            name = f"{base}@{count}"  # a layer that is used more than once
        self._taken.add(name)
        arrays = {key: _array(value) for key, value in tensors.items() if value is not None}
        self.steps.append(Step(name, op, inputs, settings or {}, arrays))
        return name

    def value(self, argument: Any, dtype: torch.dtype = torch.float32) -> str:
        """Name of the value that a node gives; a comparison's has ±1 for true and false."""
        if not isinstance(argument, fx.Node) or argument not in self.values:
            raise Unsupported("one of its inputs does not depend on the picture")
        if argument.meta.get("dtype") != dtype:
            raise Unsupported(f"one of its inputs is {argument.meta.get('dtype', 'no single tensor')}")
        if argument in self.grouped:
            raise Unsupported("it takes channels in groups, which only a shuffle of channels can")
        return self.values[argument]

    def input(self, node: fx.Node) -> str:
        """Name of the first argument's value."""
        return self.value(first(node))

    def constant(self, value: Any) -> Tensor | float | None:
        """A number, a parameter or another tensor of the network; None for what depends on the picture."""
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, fx.Node) and value.op == "get_attr":
            owner, _, name = value.target.rpartition(".")
            return getattr(self.model.get_submodule(owner), name)
        return None


def first(node: fx.Node) -> Any:
    """The first argument."""
    return node.args[0] if node.args else None


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """An argument by its place or its name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def shape_of(value: Any) -> Shape:
    """Shape of a node's value for one picture, without the batch."""
    shape = value.meta.get("shape") if isinstance(value, fx.Node) else None
    if not shape or len(shape) < 2 or shape[0] != 1:
        raise Unsupported("its input or output is not a tensor with one entry per picture")
    return shape[1:]


def name_of(node: fx.Node) -> str:
    """The module's path, or the name that the tracer gave to a function's call."""
    return node.target if node.op == "call_module" else node.name


def pair(value: Any) -> list[int]:
    """One number or two, as two."""
    values = [value] if isinstance(value, int) else list(value)
    return [int(values[0]), int(values[-1])]


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    array = np.ascontiguousarray(value)
    return array if array.dtype == np.uint8 else array.astype(np.float32)
