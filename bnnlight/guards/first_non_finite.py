"""Finds where NaN or infinity comes from: the batch, a layer's weights, or what a layer makes of them.

Everything here waits for the device, so it is for a step that has gone wrong already.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from bnnlight.nn.inspect import first_few, named_binary_layers, named_tensors
from bnnlight.nn.running import uncompiled


def is_finite(nest: Any) -> bool:
    """Whether all numbers of all tensors in a nest are finite."""
    return all(bool(tensor.isfinite().all()) for _, tensor in named_tensors(nest))


def kind(tensor: Tensor) -> str:
    """``nan``, ``inf`` or ``-inf``: what a tensor that is not finite holds, nan before the others."""
    for name, mask in (("nan", tensor.isnan()), ("inf", tensor == torch.inf)):
        if mask.any():
            return name
    return "-inf"


def bad_items(batch: Any, only: Any = None) -> str:
    """Which items of a batch hold numbers that are not finite; empty where none does.

    Args:
        batch: any nest of tensors, the items along their first dimension.
        only: tensors of the batch to look at, in a nest; all of them by default.
    """
    ids = None if only is None else {id(tensor) for _, tensor in named_tensors(only)}
    texts = []
    for path, tensor in named_tensors(batch, "batch"):
        if is_finite(tensor) or (ids is not None and id(tensor) not in ids):
            continue
        if tensor.ndim == 0:
            texts.append(f"{path} is {kind(tensor)}")
            continue
        items = (~tensor.isfinite()).flatten(1).any(1) if tensor.ndim > 1 else ~tensor.isfinite()
        indices = items.nonzero().flatten().tolist()
        where = f"item {indices[0]}" if len(indices) == 1 else f"{len(indices)} items, first item {indices[0]}"
        texts.append(f"{path} holds {kind(tensor)} in {where} of {len(items)}")
    return ", ".join(texts)


class ForwardWatch:
    """Follows one forward pass, module by module in the order of their calls.

    Of a binary layer the inner modules are not looked at: its path is that of
    :func:`bnnlight.nn.inspect.named_binary_layers`.

    Attributes:
        origin: where the first number that is not finite was, in words; empty where there was none.
        num_calls: of modules, up to there.
        calls: path of each module that ran → number of its last call.
    """

    def __init__(self, model: nn.Module, batch: Any) -> None:
        self.origin = ""
        self.calls: dict[str, int] = {}
        self.num_calls = 0
        self._model, self._batch, self._numbers = model, batch, itertools.count(1)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on all modules, as long as this lasts."""
        layers = [name for name, _ in named_binary_layers(self._model)]
        hooks = []
        for path, module in self._model.named_modules():
            whole = path in layers
            if any(path.startswith(f"{layer}.") for layer in layers):
                continue
            for register, look in (
                (module.register_forward_pre_hook, self._before(path, whole)),
                (module.register_forward_hook, self._after(path)),
            ):
                hooks.append(register(look, with_kwargs=True))
        try:
            with uncompiled():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _before(self, path: str, whole: bool) -> Any:
        def look(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            self.calls[path] = next(self._numbers)
            if self.origin:
                return
            self.num_calls += 1
            inputs = (*args, *kwargs.values())
            if not is_finite(inputs):
                # only tensors that are handed on are to blame: NaN may stand for what is not known in others
                entered = bad_items(self._batch, inputs) or bad_items(self._batch)
                fallback = f"the input of {_named(path, module)} holds {_kinds(inputs)}"
                self.origin = f"the batch itself: {entered}" if self.num_calls == 1 and entered else fallback
            else:
                self.origin = bad_weights(module, path, recurse=whole)

        return look

    def _after(self, path: str) -> Any:
        def look(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            if not self.origin and not is_finite(output):
                # weights that a module uses for one that is never called
                weights = bad_weights(module, path, recurse=True)
                self.origin = weights or f"the output of {_named(path, module)} holds {_kinds(output)}"

        return look


def bad_weights(module: nn.Module, path: str = "", recurse: bool = True) -> str:
    """The first of a module's parameters that is not finite, in words; empty where all are.

    Args:
        module: any.
        path: of the module.
        recurse: looks at the parameters of modules within, too.
    """
    for name, parameter in module.named_parameters(recurse=recurse):
        if not is_finite(parameter):
            return f"the weights of {_named(path, module)} hold {kind(parameter)} ({name})"
    return ""


def bad_gradients(model: nn.Module, calls: dict[str, int]) -> str:
    """The parameters whose gradients are not finite, the one closest to the output first; empty where none is.

    Args:
        model: after a backward pass.
        calls: path of each module → number of its last call, as backward goes from the last one to the first; where it
            is empty, the parameter registered last comes first.
    """

    def last_call(name: str) -> int:
        # of the nearest module that ran: the inner ones of a binary layer are not in the list
        while name:
            name = name.rpartition(".")[0]
            if name in calls:
                return calls[name]
        return -1

    names = [name for name, p in model.named_parameters() if p.grad is not None and not is_finite(p.grad)]
    # from the last registered one where two stand in one module
    names = sorted(reversed(names), key=last_call, reverse=True)
    if not names:
        return ""
    order = ", closest to the output first" if calls else ""
    return f"the gradient is not finite{order}: {first_few(names)}"


def bad_state(model: nn.Module) -> str:
    """The first trained weight or running statistic that is not finite, in words; empty where all are."""
    statistics = {path: _running_statistics(module) for path, module in model.named_modules()}
    tensors = [p.detach() for p in model.parameters() if p.requires_grad]
    tensors += [tensor for tracked in statistics.values() for tensor in tracked]
    # one pass first, as nearly always all is well; it may overflow where every number is finite
    if not tensors or is_finite(get_total_norm(tensors)) or is_finite(tensors):
        return ""
    for path, module in model.named_modules():
        bad = bad_weights(module, path, recurse=False)
        if bad:
            return bad
    path = next(path for path, tracked in statistics.items() if not is_finite(tracked))
    return f"the running statistics of {path} hold {_kinds(statistics[path])}"


def _running_statistics(module: nn.Module) -> list[Tensor]:
    buffers = dict(module.named_buffers(recurse=False))
    return [buffers[name] for name in ("running_mean", "running_var") if name in buffers]


def _named(path: str, module: nn.Module) -> str:
    return path or type(module).__name__


def _kinds(nest: Any) -> str:
    return next(kind(tensor) for _, tensor in named_tensors(nest) if not is_finite(tensor))
