"""From a configured optimizer and schedule to what Lightning wants."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bnnlight.nn.inspect import parameter_groups


def make_optimizer(model: nn.Module, optimizer: OptimizerCallable, alpha_lr: float = 1.0) -> Optimizer:
    """An optimizer with one parameter group for each kind of parameter.

    Latent factors, α, batch norm, biases and PReLU get no weight decay; a latent's parameters get the
    optimizer's learning rate times what the latent asks for.

    Args:
        model: the network.
        optimizer: makes an optimizer from parameter groups.
        alpha_lr: learning rate of α relative to the optimizer's.
    """
    groups = parameter_groups(model, alpha_lr)
    listed = [
        {"params": list(group.parameters), "name": group.name} | ({} if group.decay else {"weight_decay": 0.0})
        for group in groups
    ]
    made = optimizer(listed)
    for group, entry in zip(groups, made.param_groups, strict=True):
        entry["lr"] = entry["lr"] * group.lr_scale
    return made


def warmup_cosine(optimizer: Optimizer, num_steps: int, warmup: float) -> LambdaLR:
    """Linear warm-up over the first part of a run, then half a cosine down to zero.

    Args:
        optimizer: its present learning rates are the peaks.
        num_steps: length of the run in optimizer steps.
        warmup: share of the run spent warming up, in [0, 1).

    Raises:
        ValueError: the warm-up's share is out of range, or the run has no end.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is {warmup}: give the share of the run it takes, from 0 to below 1")
    if not math.isfinite(num_steps) or num_steps < 1:
        raise ValueError("no end to plan the learning rate for: set trainer.max_epochs or trainer.max_steps")
    num_warmup = round(warmup * num_steps)

    def factor(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / (num_warmup + 1)
        done = (step - num_warmup) / max(1, num_steps - num_warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)


def configure_optimizers(
    module: L.LightningModule,
    optimizer: OptimizerCallable,
    scheduler: LRSchedulerCallable | None,
    warmup: float,
    alpha_lr: float,
) -> dict[str, Any]:
    """What ``LightningModule.configure_optimizers`` returns.

    Args:
        module: attached to a trainer.
        optimizer: makes an optimizer from parameter groups.
        scheduler: makes a scheduler, stepped once an epoch; None stands for :func:`warmup_cosine` over the
            whole run, stepped once a batch.
        warmup: share of the run that :func:`warmup_cosine` warms up.
        alpha_lr: learning rate of α relative to the optimizer's.
    """
    made = make_optimizer(module, optimizer, alpha_lr)
    if scheduler is None:
        steps = module.trainer.estimated_stepping_batches
        planned = warmup_cosine(made, steps, warmup)
        return {"optimizer": made, "lr_scheduler": {"scheduler": planned, "interval": "step"}}
    planned = scheduler(made)
    entry: dict[str, Any] = {"scheduler": planned, "interval": "epoch"}
    if isinstance(planned, ReduceLROnPlateau):
        entry["monitor"] = planned.monitor
    return {"optimizer": made, "lr_scheduler": entry}
