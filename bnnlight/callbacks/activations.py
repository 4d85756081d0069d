"""Logs signs, dead channels and inputs without gradient of each binary layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnnlight.callbacks.interval import Interval, log_figures
from bnnlight.nn.inspect import named_binary_layers


class Activations(L.Callback):
    """Logs three shares of the inputs x of each binary layer, at every ``interval``-th optimizer step.

    - ``bnn/positive/LAYER``: of the inputs with x ≥ 0, which become +1; where the layer has ``input_parts``, x is what
      they return.
    - ``bnn/dead/LAYER``: of the input channels whose sign is the same everywhere, in everything looked at.
    - ``bnn/cut/LAYER``: of the inputs with abs(x) > 1, where the clipped and the polynomial gradient are 0.

    All batches of an accumulated step and all calls of a layer count together, and so do all ranks, by one sum
    over them per look. Counts are integers. Hooks are on the layers only while a step that is looked at runs; a
    layer that did not run in it logs nothing.

    Args:
        interval: number of optimizer steps between two looks.

    Raises:
        ValueError: the interval is below 1.
    """

    def __init__(self, interval: int = 100) -> None:
        self.interval = Interval(interval)
        self._hooks: list[RemovableHandle] = []
        self._counts: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.interval.start(trainer.global_step)
        self._remove_hooks()
        self._counts = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._remove_hooks()  # of a batch that was begun and skipped
        if self.interval.is_next(trainer.global_step):
            self._add_hooks(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._remove_hooks()
        if not self.interval.due(trainer.global_step):
            return
        counts, self._counts = self._counts, {}
        if not counts:
            return
        # one flat tensor, in the order of the layers, which is the same on all ranks
        flat = torch.cat(list(counts.values())).to(trainer.strategy.root_device)
        summed = trainer.strategy.reduce(flat, reduce_op="sum").cpu()
        shares: dict[str, float] = {}
        parts = summed.split([len(count) for count in counts.values()])
        for layer, part in zip(counts, parts, strict=True):
            shares |= {f"bnn/{name}/{layer}": share for name, share in _shares(part).items()}
        log_figures(trainer, shares)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._remove_hooks()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._remove_hooks()

    def _add_hooks(self, model: L.LightningModule) -> None:
        for name, layer in named_binary_layers(model):
            num_inputs, *kernel = layer.weight_shape[1:]
            num_channels = num_inputs * getattr(layer, "groups", 1)
            # also of layers that do not run on this rank, so that all ranks sum tensors of one size
            zeros = torch.zeros(2 + num_channels, dtype=torch.int64, device=model.device)
            self._counts.setdefault(name, zeros)
            hook = partial(self._see, name, -1 - len(kernel))
            self._hooks.append(layer.register_forward_pre_hook(hook, with_kwargs=True))

    def _see(self, name: str, channel_dim: int, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["x"]
        with torch.no_grad():
            self._counts[name] = self._counts[name].to(x.device) + _count(layer.before_sign(x), channel_dim)

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self.interval.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.interval.resume(state_dict["last_step"])


@torch.no_grad()
def _count(x: Tensor, channel_dim: int) -> Tensor:
    """Number of inputs, of those above 1 in size, and of positive ones in each channel: ``(2 + channels,)``."""
    x = x.unsqueeze(0)  # so that there is something to sum over beside the channels
    others = [dim for dim in range(x.ndim) if dim != x.ndim + channel_dim]
    size = torch.full((1,), x.numel(), dtype=torch.int64, device=x.device)
    return torch.cat([size, torch.count_nonzero(x.abs() > 1).view(1), torch.count_nonzero(x >= 0, others)])


def _shares(counts: Tensor) -> dict[str, float]:
    num_inputs, num_cut = counts[:2].tolist()
    positive = counts[2:]
    if not num_inputs:
        return {}
    dead = (positive == 0) | (positive * len(positive) == num_inputs)
    return {
        "positive": int(positive.sum()) / num_inputs,
        "dead": int(dead.sum()) / len(positive),
        "cut": num_cut / num_inputs,
    }
