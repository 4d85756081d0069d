"""Arithmetic with the network's own numbers, as steps of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from bnnlight.deploy.freezing.translation import Translation, Unsupported, first, name_of, shape_of


def sum_of(t: Translation, node: fx.Node) -> str:
    """x + y, x + c, c + x."""
    left, right = _operands(node)
    if t.constant(left) is t.constant(right) is None:
        return _added(t, node, t.value(left), t.value(right))
    return _with_constant(t, node, lambda c: (np.ones_like(c), c))


def difference(t: Translation, node: fx.Node) -> str:
    """x − y, x − c, c − x."""
    left, right = _operands(node)
    if t.constant(right) is not None:
        return _with_constant(t, node, lambda c: (np.ones_like(c), -c))
    if t.constant(left) is not None:
        return _with_constant(t, node, lambda c: (-np.ones_like(c), c))
    return _added(t, node, t.value(left), _negated(t, f"{node.name}.minus", right))


def product(t: Translation, node: fx.Node) -> str:
    """x · y, x · c, c · x."""
    left, right = _operands(node)
    if t.constant(left) is t.constant(right) is None:
        return t.step(name_of(node), "multiply", *_of_one_rank(t, left, right))
    return _with_constant(t, node, lambda c: (c, None))


def quotient(t: Translation, node: fx.Node) -> str:
    """x / c, as a product with the reciprocal: the same but for one unit in the last place."""
    if t.constant(_operands(node)[1]) is None:
        raise Unsupported("it divides by what depends on the picture")
    return _with_constant(t, node, lambda c: ((1 / c.astype(np.float64)).astype(np.float32), None))


def negative(t: Translation, node: fx.Node) -> str:
    """−x."""
    return _negated(t, name_of(node), first(node))


def compared(t: Translation, node: fx.Node) -> str:
    """x >= c, as ±1; see :func:`selected`."""
    value, bound = _operands(node)
    return t.step(name_of(node), "binarize", t.value(value), threshold=_per_channel(t, node, value, bound))


def selected(t: Translation, node: fx.Node, condition: Any, yes: Any, no: Any) -> str:
    """One number where a comparison holds and another one elsewhere."""
    numbers = [t.constant(value) for value in (yes, no)]
    if any(number is None or np.size(number) != 1 for number in numbers) or node.meta["dtype"] != torch.float32:
        raise Unsupported("only a choice between two numbers can be shipped")
    a, b = (np.full(shape_of(condition)[0], float(number), np.float64) for number in numbers)
    return t.step(name_of(node), "affine", t.value(condition, torch.bool), scale=(a - b) / 2, shift=(a + b) / 2)


def _operands(node: fx.Node) -> tuple[Any, Any]:
    operands = [*node.args, *(node.kwargs[name] for name in ("input", "other") if name in node.kwargs)]
    if len(operands) != 2 or not set(node.kwargs) <= {"input", "other"}:
        raise Unsupported("with options")
    return operands[0], operands[1]


def _added(t: Translation, node: fx.Node, left: str, right: str) -> str:
    shapes = [argument.meta["shape"] for argument in _operands(node)]
    if shapes[0] != shapes[1]:
        raise Unsupported(f"of shapes {shapes[0][1:]} and {shapes[1][1:]}: only equal ones can be shipped")
    return t.step(name_of(node), "add", left, right)


def _of_one_rank(t: Translation, *values: Any) -> list[str]:
    """Two values whose shapes torch's broadcasting lets stand as they are."""
    shapes = [shape_of(value) for value in values]
    if len(shapes[0]) != len(shapes[1]):
        raise Unsupported(f"of shapes {shapes[0]} and {shapes[1]}: only as many dimensions can be shipped")
    return [t.value(value) for value in values]


def _negated(t: Translation, name: str, value: Any) -> str:
    return t.step(name, "affine", t.value(value), scale=np.full(shape_of(value)[0], -1, np.float32))


def _with_constant(t: Translation, node: fx.Node, parts: Callable) -> str:
    left, right = _operands(node)
    value, constant = (left, right) if t.constant(left) is None else (right, left)
    scale, shift = parts(_per_channel(t, node, value, constant))
    return t.step(name_of(node), "affine", t.value(value), scale=scale, shift=shift)


def _per_channel(t: Translation, node: fx.Node, value: Any, constant: Any) -> np.ndarray:
    """The constant as ``(C,)``, one number for each channel of the value."""
    number = t.constant(constant)
    if number is None:
        raise Unsupported("of two values that depend on the picture")
    shape = shape_of(value)
    if shape_of(node) != shape:
        raise Unsupported(f"makes shape {shape_of(node)} of {shape}")
    array = number.detach().cpu().numpy() if isinstance(number, Tensor) else np.asarray(number)
    # broadcast as torch does, then along the channels alone
    rows = np.broadcast_to(array, (1, *shape))[0].reshape(shape[0], -1)
    if (rows != rows[:, :1]).any():
        raise Unsupported("with a constant that is not one number a channel")
    return np.ascontiguousarray(rows[:, 0], np.float32)
