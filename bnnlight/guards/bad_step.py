"""Describes an optimizer step that is not finite: its batch, its rank, and where the bad numbers begin."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from bnnlight.guards.first_non_finite import ForwardWatch, bad_gradients, bad_items, is_finite
from bnnlight.guards.kept_state import KeptState


class RanBatch(NamedTuple):
    """A batch that has run forward: one of those of an accumulated step.

    Attributes:
        data: as they were handed to the step.
        index: of the batch in its epoch.
        loss: ``()``, as it went into the backward pass.
    """

    data: Any
    index: int
    loss: Tensor


def in_company() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def describe(trainer: L.Trainer, model: L.LightningModule, batches: list[RanBatch]) -> str:
    """What is not finite in a step, in words, as far as can be seen without running its batches again.

    Every process has to call it.
    """
    lost = [batch for batch in batches if not is_finite(batch.loss)]
    if lost:
        return _nearest(trainer, (0, 0), lost[:1], bad_items(lost[0].data))
    items = next(filter(None, (bad_items(batch.data) for batch in batches)), "")
    return _nearest(trainer, (1, 0), batches, bad_gradients(model, {}), items)


def find_origin(trainer: L.Trainer, model: L.LightningModule, batches: list[RanBatch]) -> str:
    """Where that begins, in words: runs the step's batches again and looks at each layer.

    The network is left as it is. Every process has to call it.
    """
    # all ranks run all of their batches, whether bad or not: a synced batch norm waits for the others
    watches = [_run_again(trainer, model, batch) for batch in batches]
    lost = [batch for batch in batches if not is_finite(batch.loss)]
    for batch, watch in zip(batches, watches, strict=True):
        if watch.origin:
            # a sign is finite, so that a binary layer may hide from the loss what its gradient shows
            what = "" if lost else "the gradient is not finite"
            return _nearest(trainer, (0, watch.num_calls), [batch], what, f"where it begins: {watch.origin}")
    if lost:
        text = "where it begins: the loss itself, as the outputs of all layers are finite"
        return _nearest(trainer, (1, 0), lost[:1], text, bad_items(lost[0].data))
    return _nearest(trainer, (2, 0), batches, bad_gradients(model, watches[-1].calls if watches else {}))


def _nearest(trainer: L.Trainer, distance: tuple[int, int], batches: list[RanBatch], *texts: str) -> str:
    """What the process nearest to the cause says; the others are told it.

    Through a synced batch norm NaN is in all processes: the one that had it in an earlier layer is nearer.
    """
    where = f"step {trainer.global_step + 1} (epoch {trainer.current_epoch}"
    if batches:
        first, last = batches[0].index, batches[-1].index
        where += f", batch {first}" if len(batches) == 1 else f", batches {first} to {last}"
    if in_company():
        where += f", rank {trainer.global_rank}"
    # Lightning has divided them by the number of batches; a loss scale would show in a finite one only
    losses = ", ".join(f"{batch.loss.item() * trainer.accumulate_grad_batches:g}" for batch in batches)
    texts = losses and f"the loss is {losses}", *texts
    mine = distance, trainer.global_rank, f"{where}): {', '.join(filter(None, texts))}"
    everyones: list[Any] = [mine]
    if in_company():
        everyones *= dist.get_world_size()
        dist.all_gather_object(everyones, mine)
    return min(everyones)[2]


def _run_again(trainer: L.Trainer, model: L.LightningModule, batch: RanBatch) -> ForwardWatch:
    watch = ForwardWatch(model, batch.data)
    # with manual optimization a training step would step the optimizer
    if not model.automatic_optimization:
        return watch
    index = [batch.index] if is_param_in_hook_signature(model.training_step, "batch_idx", min_args=2) else []
    state = KeptState(model)
    state.keep()
    precision = trainer.precision_plugin.train_step_context()
    # an error in the search must not hide what is searched for
    with contextlib.suppress(Exception), watch.watching(), torch.no_grad(), precision:
        model.training_step(batch.data, *index)
    state.restore()
    return watch
