"""`plan_conversion`: which convolutions of a network can be made binary, which layers stay real, and why."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnnlight.nn.factorize import place
from bnnlight.nn.flow import Flow, find_flow, weighted_layers
from bnnlight.nn.layers import BinaryLayer
from bnnlight.nn.torch_internals import has_gradient_hook

SHORTCUTS = ("*downsample*", "*shortcut*")
"""Paths of the 1×1 convolutions on shortcuts, as torchvision and this package name them."""

SIDES = (64, 224, 256, 32)
"""Heights and widths in px of the pictures that a network is tried on where none is named."""


@dataclass(frozen=True)
class ConversionPlan:
    """What :func:`bnnlight.nn.convert` makes of a network.

    Attributes:
        binary: paths of the convolutions that become binary.
        real: path of every layer with weights that stays real → why it does.
        refused: path of every layer that cannot be made binary, and stays real only if ``keep`` says so → why.
    """

    binary: tuple[str, ...]
    real: Mapping[str, str]
    refused: Mapping[str, str]


def plan_conversion(
    model: nn.Module,
    *,
    keep: Sequence[str] = SHORTCUTS,
    keep_first: bool = True,
    keep_last: bool = True,
    input_shape: Sequence[int] | None = None,
) -> ConversionPlan:
    """What :func:`bnnlight.nn.convert` would do with the same options; the network is left as it is.

    To convert a network anyway, and leave what is refused real::

        keep = [*SHORTCUTS, *plan_conversion(model).refused]

    Args:
        model, keep, keep_first, keep_last, input_shape: as for :func:`bnnlight.nn.convert`.

    Raises:
        ValueError: the network does not run on a picture of ``input_shape``, or ``keep`` names a layer that is not
            there.
    """
    layers = weighted_layers(model)
    real, refused = _by_kind(model, layers, keep)
    open_ = {path: m for path, m in layers.items() if path not in real | refused and not isinstance(m, BinaryLayer)}
    if open_ and (keep_first or keep_last):
        first_or_last, doubtful = _by_place(model, layers, open_, keep_first, keep_last, input_shape)
        real, refused = real | first_or_last, refused | doubtful
    chosen = {path: conv for path, conv in open_.items() if path not in real}
    refused |= {path: reason for path, conv in chosen.items() if (reason := _refusal(conv))}
    refused |= _torn(model, {path: conv for path, conv in chosen.items() if path not in refused})
    return ConversionPlan(
        tuple(path for path in chosen if path not in refused),
        {path: real[path] for path in layers if path in real},
        {path: refused[path] for path in layers if path in refused},
    )


def _by_kind(
    model: nn.Module, layers: Mapping[str, nn.Module], keep: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """What stays real, and what is refused, whatever its place in the network."""
    real: dict[str, str] = {}
    refused: dict[str, str] = {}
    names = _names(model)
    _check_keep(keep, [name for layer in layers.values() for name in names[layer]])
    for path, layer in layers.items():
        if isinstance(layer, BinaryLayer):
            continue
        if patterns := [pattern for pattern in keep for name in names[layer] if fnmatchcase(name, pattern)]:
            real[path] = f"kept by {patterns[0]!r}"
        elif isinstance(layer, torch.jit.ScriptModule):
            refused[path] = "it is compiled by TorchScript: convert the network before it is compiled"
        elif not isinstance(layer, nn.Conv2d):
            real[path] = f"{type(layer).__name__}: only 2-D convolutions become binary"
    return real, refused


def _by_place(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    open_: Iterable[str],
    keep_first: bool,
    keep_last: bool,
    input_shape: Sequence[int] | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """The convolutions that stay real by their place in the network, and those whose place cannot be seen."""
    empty = next((name for name, p in model.named_parameters() if is_lazy(p) or p.is_meta), None)
    if empty:
        # to run it would give lazy layers the shapes of the picture that is tried
        reason = f"the network cannot be run as long as its {empty} has no numbers: give it its weights first"
        return {}, dict.fromkeys(open_, reason)
    flow = _observed(model, layers, input_shape)
    real = dict.fromkeys(_first(flow, open_, layers), "it sees the picture first") if keep_first else {}
    doubtful = {}
    for path in (path for path in open_ if keep_last and path not in real):
        if path in flow.inner - flow.last:
            continue
        if flow.error:
            reason = f"whether the answer comes from it cannot be seen, as the network {flow.error}"
            doubtful[path] = f"{reason}: give input_shape, or keep_last=False and the answer's layers in `keep`"
        else:
            real[path] = "the answer comes from it" if path in flow.ran else "it does not run in eval mode"
    return real, doubtful


def _check_keep(keep: Sequence[str], names: Collection[str]) -> None:
    if isinstance(keep, str):
        raise ValueError(f"keep is {keep!r}: give a list of patterns")
    # a pattern may match nothing, as shortcuts do where there are none; a name is meant
    wrong = [name for name in keep if not set(name) & set("*?[") and name not in names]
    if wrong:
        within = [name for name in names if name.startswith(f"{wrong[0]}.")]
        advice = f"'{wrong[0]}.*' names those in it" if within else "see plan_conversion(model) for their names"
        raise ValueError(f"keep names {wrong[0]!r}, which is not a layer with weights: {advice}")


def _names(model: nn.Module) -> dict[nn.Module, list[str]]:
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return names


def _observed(model: nn.Module, layers: Mapping[str, nn.Module], input_shape: Sequence[int] | None) -> Flow:
    watched = {path: layer for path, layer in layers.items() if not isinstance(layer, torch.jit.ScriptModule)}
    if input_shape is not None:
        flow = find_flow(model, watched, [tuple(input_shape)])
        if flow.error:
            raise ValueError(f"the network {flow.error}")
        return flow
    convolutions = [layer for layer in layers.values() if isinstance(layer, nn.Conv2d)]
    channels = dict.fromkeys((convolutions[0].in_channels, min(c.in_channels for c in convolutions)))
    return find_flow(model, watched, [(number, side, side) for number in channels for side in SIDES])


def _first(flow: Flow, open_: Iterable[str], layers: Mapping[str, nn.Module]) -> list[str]:
    registered = [path for path, layer in layers.items() if isinstance(layer, nn.Conv2d)][:1]
    return [path for path in open_ if path in (flow.first or flow.unled or registered)]


_HARMLESS = {"__init__", "extra_repr", "reset_parameters"}


def _refusal(conv: nn.Conv2d) -> str | None:
    """Why a binary convolution cannot stand for this one; None where it can."""
    kind = type(conv)
    own = dict(conv.named_parameters(recurse=False))
    weight = own.get("weight")
    if weight is not None and is_lazy(weight):
        return "it has no weights yet: run the network once first"
    if weight is None or (conv.bias is not None and "bias" not in own):
        return "its weight or bias is computed (parametrized, normalized, pruned): undo that before"
    if methods := _own_methods(conv):
        return f"it is a {kind.__name__} with a {', '.join(methods)} of its own"
    others = [
        *own.keys() - {"weight", "bias"},
        *(n for n, _ in conv.named_buffers()),
        *(n for n, _ in conv.named_children()),
    ]
    if others:
        return f"it holds {others[0]!r} besides weight and bias"
    if type(weight) is not nn.Parameter:
        return f"its weight is a {type(weight).__name__}"
    if weight.is_meta:
        return "it is on the meta device, without numbers: give the network its weights first"
    if weight.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"its weight is {weight.dtype}"
    if has_gradient_hook(weight):
        return "its weight has a hook on its gradient"
    if conv.padding_mode != "zeros":
        return f"padding_mode {conv.padding_mode!r} cannot be made binary"
    if conv.padding == "same" and any(d * (k - 1) % 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)):
        return f"padding 'same' is uneven for kernel {conv.kernel_size}"
    return None


def _own_methods(conv: nn.Conv2d) -> list[str]:
    """What a module's class, or the module itself, does in another way than ``torch.nn.Conv2d``."""
    mine, plain = (
        {name: inspect.getattr_static(of, name, None) for name in dir(nn.Conv2d)} for of in (type(conv), nn.Conv2d)
    )
    special = ("__call__", "__getattr__", "__setattr__")
    named = [n for n in plain if callable(plain[n]) and n not in _HARMLESS and (n[:2] != "__" or n in special)]
    return [n for n in named if mine[n] is not plain[n] or n in vars(conv)]


def _torn(model: nn.Module, chosen: Mapping[str, nn.Conv2d]) -> dict[str, str]:
    """The convolutions that share their weight with something that stays real, or has another shape."""
    shared: dict[object, list[tuple[str, torch.Size]]] = {}
    for path, conv in chosen.items():
        shared.setdefault(place(conv.weight), []).append((path, conv.weight.shape))
    within = set(chosen.values())
    torn = {}
    for name, module in model.named_modules():
        if module in within:
            continue
        for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            for path, _ in () if is_lazy(tensor) else shared.get(place(tensor), ()):
                torn[path] = f"it shares its weight with {f'{name}.{key}'.lstrip('.')}, which stays real"
    for members in shared.values():
        first, shape = members[0]
        other = [path for path, size in members if size != shape]
        torn |= dict.fromkeys(other, f"it shares its weight with {first}, in another shape")
    return torn
