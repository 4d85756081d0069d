"""Logs how an optimizer step changes the latent weights: rank of the change, and whether it follows the gradient."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from bnnlight.callbacks.interval import Interval, log_figures
from bnnlight.metrics.rank import effective_rank, singular_values
from bnnlight.nn.inspect import named_binary_layers


class Updates(L.Callback):
    """Logs how every ``interval``-th optimizer step changed the W̃ of each binary layer.

    - ``bnn/update_rank/LAYER``: effective rank of the change as a matrix (O, I·kh·kw), see
      :func:`bnnlight.metrics.effective_rank`. Momentum with a few large directions has a low rank, Muon's steps have
      the largest possible.
    - ``bnn/update_follows/LAYER``: share of weights that were moved against their gradient ∂loss/∂W̃ of this step,
      of those that have one. A step by the gradient's signs gives 1; factors move weights together, a basis mixes them,
      and momentum remembers other gradients.

    Both also as means over the layers, ``bnn/update_rank_mean`` and ``bnn/update_follows_mean``. Gradients are this
    process's.
    W̃ is rebuilt twice for a look, and gradients are watched only while a step that is looked at runs.

    Args:
        interval: number of optimizer steps between two looks.

    Raises:
        ValueError: the interval is below 1.
    """

    def __init__(self, interval: int = 1000) -> None:
        self.interval = Interval(interval)
        self._hooks: list[RemovableHandle] = []
        self._leaves: set[str] = set()
        self._gradients: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.interval.start(trainer.global_step)
        self._forget()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if self.interval.is_next(trainer.global_step) and trainer.is_global_zero and not self._hooks:
            for name, layer in named_binary_layers(pl_module):
                self._watch(name, layer.latent)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        if self._hooks:
            self._before = {name: _weight(layer) for name, layer in named_binary_layers(pl_module)}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if not self.interval.due(trainer.global_step):
            return
        before, gradients = self._before, self._gradients
        self._forget()
        figures: dict[str, dict[str, float]] = {"update_rank": {}, "update_follows": {}}
        for name, layer in named_binary_layers(pl_module):
            if name in before and name in gradients:
                change = _weight(layer) - before[name]
                figures["update_rank"][name] = effective_rank(singular_values(change.flatten(1)))
                figures["update_follows"][name] = _share_against(change, gradients[name])
        rows = {f"bnn/{key}/{name}": value for key, values in figures.items() for name, value in values.items()}
        rows |= {f"bnn/{key}_mean": sum(values.values()) / len(values) for key, values in figures.items() if values}
        log_figures(trainer, rows)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._forget()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self.interval.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.interval.resume(state_dict["last_step"])

    def _watch(self, name: str, latent: nn.Module) -> None:
        def add(gradient: Tensor) -> None:
            before = self._gradients.get(name)
            self._gradients[name] = gradient.detach().clone() if before is None else before + gradient

        def look(module: nn.Module, inputs: Any, weight: Tensor) -> None:
            # a parameter is the same tensor at every call, and its hook is called once in each backward pass
            if weight.requires_grad and not (weight.is_leaf and name in self._leaves):
                self._hooks.append(weight.register_hook(add))
                self._leaves |= {name} if weight.is_leaf else set()

        self._hooks.append(latent.register_forward_hook(look))

    def _forget(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._leaves, self._gradients, self._before = [], set(), {}, {}


def _weight(layer: nn.Module) -> Tensor:
    with torch.no_grad():
        return layer.latent().detach().clone()


def _share_against(change: Tensor, gradient: Tensor) -> float:
    has_gradient = gradient != 0
    return float(((change.sign() == -gradient.sign()) & has_gradient).sum() / has_gradient.sum().clamp_min(1))
