"""Runs a network once on an empty picture, to see before any training whether network and data fit."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnnlight.nn.running import uncompiled


def picture_shape(data: Any) -> tuple[int, int, int] | None:
    """Channels, height and width of a data module's pictures; None where it does not say.

    It says so by ``num_channels`` and ``image_size``, as the package's own modules do, or by the first picture of its
    training loader.
    """
    channels, size = getattr(data, "num_channels", None), getattr(data, "image_size", None)
    if channels and size:
        return channels, size, size
    try:
        sample = data.train_dataloader().dataset[0]
        image = sample["image"] if isinstance(sample, dict) else sample[0]
        return tuple(image.shape) if image.ndim == 3 else None
    except Exception:  # a loader of another kind: then the first step tells
        return None


def answer(task: L.LightningModule, shape: tuple[int, int, int]) -> Any:
    """What a task's network answers to one picture of zeros, ``(1, C, H, W)``.

    Weights, buffers, modes and random numbers are left as before. The task runs where it is: before training, on the
    CPU.

    Returns:
        None where the network has no weights yet to run with.

    Raises:
        ValueError: it does not take such a picture.
    """
    parameters = list(task.parameters())
    if any(is_lazy(p) or p.is_meta for p in parameters):
        return None
    like = next((p for p in parameters if p.is_floating_point()), torch.zeros(()))
    picture = torch.zeros(1, *shape, dtype=like.dtype, device=like.device)
    modes = {module: module.training for module in task.modules()}
    buffers = {buffer: buffer.clone() for buffer in task.buffers()}
    try:
        with torch.no_grad(), isolate_rng(include_cuda=False), uncompiled():
            return task.eval()(picture)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        channels, *size = shape
        reason = " ".join(str(error).split()) or type(error).__name__
        num_inputs = _first_channels(task)
        pictures = f"pictures of {channels} {'channel' if channels == 1 else 'channels'}"
        if num_inputs not in (None, channels):
            raise ValueError(
                f"the data have {pictures}, and the network takes {num_inputs}: "
                f"set model.backbone.in_channels to {channels}"
            ) from error
        raise ValueError(
            f"the data have {pictures} and {size[1]}×{size[0]} px, and the network does not take them ({reason}): set "
            "data.image_size, or the backbone's options, to what fits"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers.items():
                buffer.copy_(before)


def _first_channels(task: nn.Module) -> int | None:
    """Input channels of the first layer that has them."""
    for module in task.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Conv2d) and isinstance(weight, Tensor):
            return module.in_channels
        if shape := getattr(module, "weight_shape", None):  # a binary layer
            return shape[1] * getattr(module, "groups", 1)
    return None
