"""Which layers see the picture first, and which give the answer, as seen while a network runs once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnnlight.nn.inspect import named_tensors
from bnnlight.nn.layers import BinaryLayer
from bnnlight.nn.running import blank, evaluating

PICTURE = object()
"""Stands for the network's input, beside the layers' paths."""


@dataclass
class Flow:
    """What was seen of layers with weights while a network ran on one picture, by their paths.

    Attributes:
        ran: those that ran.
        first: those whose input was made of the picture alone.
        unled: those whose input was made of neither the picture nor another one's output.
        inner: those whose output goes into another one.
        last: those that give an output of the network by themselves, or a part of one and nothing else.
        error: that the network did not run to its end, and why; None where it did.
    """

    ran: set[str] = field(default_factory=set)
    first: set[str] = field(default_factory=set)
    unled: set[str] = field(default_factory=set)
    inner: set[str] = field(default_factory=set)
    last: set[str] = field(default_factory=set)
    error: str | None = None


def find_flow(model: nn.Module, layers: Mapping[str, nn.Module], input_shapes: Sequence[tuple[int, ...]]) -> Flow:
    """Runs a network on a picture of zeros, in eval mode, and follows its values as gradients would be followed.

    What is detached on the way counts as unused: the proposals of a detection network, for instance, teach
    nothing to the layers that made them.

    Args:
        model: any network.
        layers: path → layer: the layers to tell apart.
        input_shapes: ``(C, H, W)`` of pictures, which are tried until the network runs on one to its end. What was
            seen before it broke off on others is true all the same.
    """
    flow = Flow()
    for shape in input_shapes:
        error = _follow(model, layers, shape, flow)
        if error is None:
            flow.error = None
            break
        flow.error = flow.error or f"does not run on a picture of {'×'.join(map(str, shape))} ({error})"
    return flow


def _follow(model: nn.Module, layers: Mapping[str, nn.Module], input_shape: Sequence[int], flow: Flow) -> str | None:
    """Adds to a flow what is seen in one run; the reason where it breaks off."""
    origins: dict[object, Hashable] = {}

    def before(path: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            # where a network freezes a part by running it without gradients, its values are followed all the same
            torch.set_grad_enabled(True)
            sources = _sources((args, kwargs), origins)
            flow.ran.add(path)
            flow.inner |= sources - {PICTURE}
            if sources <= {PICTURE}:
                (flow.first if sources else flow.unled).add(path)

        return hook

    def after(path: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: object) -> object:
            if not isinstance(output, Tensor) or not (output.is_floating_point() or output.is_complex()):
                return output
            # a copy, since what follows may change it in place, which a leaf must not be
            value = output.detach().requires_grad_().clone()
            origins[value.grad_fn] = path
            return value

        return hook

    hooks = [layer.register_forward_pre_hook(before(path), with_kwargs=True) for path, layer in layers.items()]
    hooks += [layer.register_forward_hook(after(path)) for path, layer in layers.items()]
    # nothing is computed backward, so nothing need be kept for it
    nothing = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda packed: packed)
    try:
        with torch.inference_mode(False), torch.enable_grad(), nothing:
            picture = blank(model, input_shape).requires_grad_().clone()
            origins[picture.grad_fn] = PICTURE
            with evaluating(model), torch.random.fork_rng(devices=[]):
                output = model(picture)
        for _, tensor in named_tensors(output):
            sources = _sources(tensor, origins) - {PICTURE}
            # of a sum along shortcuts only its last term is the answer's
            flow.last |= sources if len(sources) == 1 else sources - flow.inner
    except Exception as error:  # whatever the network's own code raises
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _sources(values: object, origins: Mapping[object, Hashable]) -> set[Hashable]:
    """The layers whose outputs some values were made of, and the picture."""
    waiting = [tensor.grad_fn for _, tensor in named_tensors(values)]
    visited: set[object] = set()
    sources = set()
    while waiting:
        function = waiting.pop()
        if function is None or function in visited:
            continue
        visited.add(function)
        if function in origins:
            sources.add(origins[function])
        else:
            waiting.extend(before for before, _ in function.next_functions)
    return sources


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Path → every layer whose weights mix its inputs: convolutions, linear and binary layers and their like.

    A module with such layers inside does not count itself, and numbers that only scale, such as those of norms, are no
    such weights. Each is listed once, in the order of registration.
    """
    return dict(_visit("", model, set()))


def _visit(path: str, module: nn.Module, visited: set[nn.Module]) -> list[tuple[str, nn.Module]]:
    if module in visited:
        return []
    visited.add(module)
    if isinstance(module, nn.Conv2d | nn.Linear | BinaryLayer):
        return [(path, module)]
    prefix = f"{path}." if path else ""
    inner = [layer for name, child in module.named_children() for layer in _visit(f"{prefix}{name}", child, visited)]
    return inner or ([(path, module)] if _mixes(module) else [])


def _mixes(module: nn.Module) -> bool:
    if isinstance(module, nn.LayerNorm | getattr(nn, "RMSNorm", nn.LayerNorm)):
        return False
    parameters = module.parameters(recurse=False)
    return any(is_lazy(p) or sum(side > 1 for side in p.shape) > 1 for p in parameters)
