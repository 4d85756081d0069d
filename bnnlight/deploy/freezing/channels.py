"""Channels taken apart and put in another order: split, chunk, slices, and the shuffle that views are used for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from bnnlight.deploy.freezing.translation import Translation, Unsupported, argument, first, name_of, shape_of

_SPLITS = (torch.split, torch.chunk, "split", "chunk")


def parts_of_channels(t: Translation, node: fx.Node) -> str:
    """``split`` and ``chunk``: nothing by themselves; :func:`of_parts` makes the step of each part that is used."""
    axis = argument(node, 2, "dim", 0)
    if axis % len(first(node).meta["shape"]) != 1:
        raise Unsupported(f"along axis {axis}: only along the channels, 1, can be shipped")
    return t.input(node)


def of_parts(t: Translation, node: fx.Node) -> str:
    """One of the parts, by its number."""
    parent, index = node.args
    if parent.target not in _SPLITS or not isinstance(index, int):
        raise Unsupported("only single parts of a split can be shipped")
    counts = [part[1] for part in parent.meta["parts"]]
    start = sum(counts[: index % len(counts)])
    return _sliced(t, node, t.values[parent], first(parent), start, start + counts[index])


def some_channels(t: Translation, node: fx.Node, index: tuple[Any, ...]) -> str:
    """``x[:, a:b]``."""
    if index[-1] is Ellipsis:
        index = index[:-1]
    others = [i for place, i in enumerate(index) if place != 1]
    channels = index[1] if len(index) > 1 else slice(None)
    if any(i != slice(None) for i in others) or not _is_range(channels):
        raise Unsupported("only channels side by side, or what drops sides of 1 px, can be shipped")
    start, stop, _ = channels.indices(shape_of(first(node))[0])
    return _sliced(t, node, t.input(node), first(node), start, stop)


def _is_range(index: Any) -> bool:
    plain = isinstance(index, slice) and index.step in (None, 1)
    return plain and all(end is None or isinstance(end, int) for end in (index.start, index.stop))


def _sliced(t: Translation, node: fx.Node, source: str, value: fx.Node, start: int, stop: int) -> str:
    if stop - start == shape_of(value)[0]:
        return source
    if stop <= start:
        raise Unsupported("it has no channels")
    return t.step(name_of(node), "slice_channels", source, settings={"start": start, "stop": stop})


def shuffled(t: Translation, node: fx.Node, groups: int) -> str:
    """Channels of the groups by turns."""
    return t.step(name_of(node), "shuffle_channels", t.input(node), settings={"groups": int(groups)})


def reshaped(flatten: Callable) -> Callable:
    """``view`` and ``reshape``: channels in groups, the end of a shuffle of channels, or what ``flatten`` knows.

    A shuffle is ``x.view(n, groups, C // groups, H, W).transpose(1, 2).reshape(n, C, H, W)``.
    """

    def translated(t: Translation, node: fx.Node) -> str:
        value = first(node)
        before, after = shape_of(value), shape_of(node)
        if value in t.grouped:
            groups, whole = -t.grouped[value], (before[0] * before[1], *before[2:])
            if groups < 0 or after != whole:
                raise Unsupported(f"from shape {before} to {after}: only a whole shuffle of channels can be shipped")
            return t.step(name_of(node), "shuffle_channels", t.values[value], settings={"groups": groups})
        if len(before) == 3 and len(after) == 4 and (after[0] * after[1], *after[2:]) == before:
            source = t.input(node)
            t.grouped[node] = after[0]
            return source
        return flatten(t, node)

    return translated


def turned(t: Translation, node: fx.Node) -> str:
    """``transpose`` of groups and channels within a shuffle."""
    value, count = first(node), len(first(node).meta["shape"])
    axes = [argument(node, 1 + place, f"dim{place}") % count for place in (0, 1)]
    if t.grouped.get(value, 0) <= 0 or sorted(axes) != [1, 2]:
        raise Unsupported("only within a shuffle of channels can it be shipped")
    t.grouped[node] = -t.grouped[value]
    return t.values[value]


def contiguous(same: Callable) -> Callable:
    """Changes nothing, also within a shuffle."""

    def translated(t: Translation, node: fx.Node, *module: nn.Module) -> str:
        if first(node) not in t.grouped:
            return same(t, node, *module)
        t.grouped[node] = t.grouped[first(node)]
        return t.values[first(node)]

    return translated
