"""Makes a task's optimizer, with its parameter groups, and its learning-rate schedule."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bnnlight.optim.as_matrices import AsMatrices, takes_matrices_alone
from bnnlight.optim.bop import Bop
from bnnlight.optim.groups import parameter_groups
from bnnlight.tasks.relative_rates import RelativeRates, relative_rates


def make_optimizer(model: nn.Module, optimizer: OptimizerCallable, alpha_lr: float = 1.0) -> Optimizer:
    """An optimizer with a group for each kind of parameter, and for each factor of each layer.

    The groups are those of :func:`bnnlight.optim.parameter_groups`. Latents, α, batch norm, biases and PReLU get no
    weight decay. Each group has its relative rate as ``lr_scale``, and keeps it under any schedule; see
    :class:`bnnlight.tasks.relative_rates.RelativeRates`. Frozen parameters are left out, and recognized when they are
    added.

    Args:
        model: the network.
        optimizer: makes an optimizer from parameter groups.
        alpha_lr: learning rate of α relative to the optimizer's.

    Raises:
        ValueError: the learning rate is not above 0 and finite, ``alpha_lr`` is not a finite number of at least 0, or
            nothing is left to train; or the optimizer is Bop, and weights are changed before their sign.
    """
    groups = parameter_groups(model, alpha_lr, frozen=True)
    if not any(parameter.requires_grad for group in groups for parameter in group.parameters):
        raise ValueError(
            f"all parameters of {type(model).__name__} are frozen, so there is nothing to train: free some (of a "
            "task's backbone, which is the whole network, BackboneFinetuning leaves the batch norms free alone)"
        )
    listed = [
        {"params": list(group.parameters), "name": group.name} | ({} if group.decay else {"weight_decay": 0.0})
        for group in groups
    ]
    try:
        instance = optimizer(listed)
    except ValueError as error:
        if str(error).startswith("Invalid learning rate"):
            raise ValueError(f"model.optimizer.lr: {error}: give a number above 0") from error
        if not takes_matrices_alone(optimizer):
            raise
        instance = AsMatrices(listed, optimizer)
    if isinstance(instance, Bop):
        instance.check_network(model)
    usual = float(instance.defaults.get("lr", 1.0))
    if not (math.isfinite(usual) and usual > 0):
        raise ValueError(f"model.optimizer.lr is {usual}: give a number above 0")
    for group, entry in zip(groups, instance.param_groups, strict=True):
        # the optimizer may have a rate of its own for some groups
        entry["lr_scale"] = group.lr_scale if entry["lr"] == usual else group.lr_scale * float(entry["lr"]) / usual
        entry["lr"] = entry["lr"] * group.lr_scale
    return relative_rates(instance, model, alpha_lr)


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

    Raises:
        ValueError: the scheduler has a list of rates; or what :func:`make_optimizer` and :func:`warmup_cosine` raise.
    """
    instance = make_optimizer(module, optimizer, alpha_lr)
    if scheduler is None:
        steps = module.trainer.estimated_stepping_batches
        planned = warmup_cosine(instance, steps, warmup)
        return {"optimizer": instance, "lr_scheduler": {"scheduler": planned, "interval": "step"}}
    planned = scheduler(instance)
    _check_one_rate(planned, instance)
    _check_length(planned, module.trainer)
    entry: dict[str, Any] = {"scheduler": planned, "interval": "epoch"}
    if isinstance(planned, ReduceLROnPlateau):
        entry["monitor"] = planned.monitor
        if planned.monitor.startswith("val/"):
            # only then there is a figure to look at, and each is looked at once
            entry["frequency"] = module.trainer.check_val_every_n_epoch or 1
    return {"optimizer": instance, "lr_scheduler": entry}


def _check_length(scheduler: Any, trainer: L.Trainer) -> None:
    """Refuses a schedule that knows its length, and would end the run with an error after so many epochs."""
    steps, epochs = getattr(scheduler, "total_steps", None), trainer.max_epochs
    if isinstance(steps, int) and epochs is not None and steps < epochs:
        raise ValueError(
            f"{type(scheduler).__name__}: total_steps is {steps}, and the schedule takes a step at the end of each of "
            f"{epochs} epochs: set scheduler.total_steps to {epochs}"
        )


def _check_one_rate(scheduler: Any, optimizer: Optimizer) -> None:
    """Refuses lists of rates, one for each group, of which only the first would count."""
    lists = {
        f"{key}s": [group[key] for group in optimizer.param_groups]
        for key in ("max_lr", "swa_lr")
        if key in optimizer.param_groups[0]
    }
    lists |= {key: value for key, value in vars(scheduler).items() if key in ("max_lrs", "min_lrs")}
    for key, rates in lists.items():
        if len(set(map(float, rates))) > 1:
            raise ValueError(
                f"{type(scheduler).__name__}: {key.removesuffix('s')} is a list: give one number, to which the groups "
                "keep their relative rates (alpha_lr, factor_lr)"
            )


def step_schedule(scheduler: Any, metric: Any | None) -> None:
    """What ``LightningModule.lr_scheduler_step`` does, where parameters may have been added since the start.

    Args:
        scheduler: of an optimizer of :func:`make_optimizer`; torch's refuse to step when there are more groups.
        metric: for schedulers that want one.
    """
    optimizer = getattr(scheduler, "optimizer", None)
    with optimizer.scheduling() if isinstance(optimizer, RelativeRates) else contextlib.nullcontext():
        scheduler.step() if metric is None else scheduler.step(metric)
