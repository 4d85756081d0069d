"""Pools, means over the picture, and interpolation, as steps of a program."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx, nn

from bnnlight.deploy.freezing.translation import Translation, Unsupported, argument, first, name_of, pair, shape_of
from bnnlight.deploy.program.shapes import MAX_ADAPTIVE, MAX_FACTOR


def max_pool(t: Translation, node: fx.Node, kernel, stride=None, padding=0, dilation=1, ceil_mode=False) -> str:
    settings = {"kernel": pair(kernel), "stride": pair(kernel if stride in (None, []) else stride)}
    settings |= {"padding": pair(padding), "dilation": pair(dilation), "ceil_mode": bool(ceil_mode)}
    return t.step(name_of(node), "max_pool2d", t.input(node), settings=settings)


def avg_pool(
    t: Translation, node: fx.Node, kernel, stride=None, padding=0, ceil_mode=False, include=True, divisor=None
) -> str:
    if divisor is not None:
        raise Unsupported("an average pool with a divisor of its own")
    settings = {"kernel": pair(kernel), "stride": pair(kernel if stride in (None, []) else stride)}
    settings |= {"padding": pair(padding), "ceil_mode": bool(ceil_mode), "count_include_pad": bool(include)}
    return t.step(name_of(node), "avg_pool2d", t.input(node), settings=settings)


def adaptive(pool: Callable) -> Callable:
    def translated(t: Translation, node: fx.Node, *module: nn.Module) -> str:
        (_, *before), (_, *after) = shape_of(first(node)), shape_of(node)
        if before == after:
            return t.input(node)
        if pool is avg_pool and after == [1, 1]:
            return t.step(name_of(node), "mean2d", t.input(node))
        if not any(b % a for b, a in zip(before, after, strict=True)):
            return pool(t, node, [b // a for b, a in zip(before, after, strict=True)])
        factor = [a // b for b, a in zip(before, after, strict=True)]
        if not any(a % b for b, a in zip(before, after, strict=True)) and max(factor) <= MAX_FACTOR:
            # each window has one pixel
            return t.step(name_of(node), "upsample_nearest", t.input(node), settings={"factor": factor})
        if pool is not avg_pool or max(after) > MAX_ADAPTIVE:
            text = f"an adaptive pool from {before} px to {after} px: only whole factors can be shipped"
            raise Unsupported(text + (f", or means up to {MAX_ADAPTIVE} px" if pool is avg_pool else ""))
        return t.step(name_of(node), "adaptive_avg_pool2d", t.input(node), settings={"size": after})

    return translated


def mean(t: Translation, node: fx.Node) -> str:
    dims, keep = argument(node, 1, "dim"), argument(node, 2, "keepdim", False)
    shape = shape_of(first(node))
    if len(shape) != 3 or not isinstance(dims, list | tuple) or sorted(d % 4 for d in dims) != [2, 3]:
        raise Unsupported("only the mean over height and width can be shipped")
    means = t.step(name_of(node), "mean2d", t.input(node))
    return means if keep else t.step(f"{name_of(node)}.flat", "flatten", means)


def upsample(t: Translation, node: fx.Node, mode: str) -> str:
    if mode not in ("nearest", "nearest-exact"):
        raise Unsupported(f"interpolation {mode!r}: only nearest can be shipped")
    (_, *before), (_, *after) = shape_of(first(node)), shape_of(node)
    if any(a % b for a, b in zip(after, before, strict=True)):
        raise Unsupported(f"from {before} px to {after} px: only whole factors can be shipped")
    factor = [a // b for a, b in zip(after, before, strict=True)]
    if max(factor) > 40:
        raise Unsupported(f"factor {max(factor)}: torch does not repeat pixels evenly beyond 40")
    return t.step(name_of(node), "upsample_nearest", t.input(node), settings={"factor": factor})
