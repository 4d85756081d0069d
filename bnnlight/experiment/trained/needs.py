"""What a task and data of one's own must have so that their network can be shipped and predicted with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from torch import Tensor, nn

from bnnlight.data.loading.transforms import ImageFormat
from bnnlight.tasks import PoseTask
from bnnlight.tasks.dry_run import answer, picture_shape


def lacking(task: L.LightningModule, data: Any) -> list[str]:
    """What they lack, each in words that say what to do about it; before the training, when it costs nothing.

    Args:
        task: any one.
        data: a data module that is set up, or None.
    """
    found = []
    if not isinstance(getattr(task, "backbone", None), nn.Module):
        found.append(f"{_name(task)} has no `backbone`: keep the network, from pictures to answers, in that attribute")
    if data is None or isinstance(task, PoseTask):
        return found
    if getattr(data, "image_format", None) is None:
        found.append(
            f"{_name(data)} has no `image_format`: give it a bnnlight.data.loading.transforms.ImageFormat, or pass "
            "--input_shape, --mean and --std to `bnnlight export`"
        )
    if getattr(data, "eval_transform", None) is None:
        found.append(f"{_name(data)} has no `eval_transform`, so that `bnnlight predict` takes an exported model alone")
    if not getattr(data, "classes", None) and not getattr(task, "class_names", None):
        found.append(f"{_name(data)} has no `classes`: without names, predictions are numbers")
    return found


def input_format(
    task: L.LightningModule,
    data: Any,
    shape: tuple[int, int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> ImageFormat:
    """What is done to a picture before the network.

    Args:
        task: with its network.
        data: the run's data module.
        shape: channels, height and width, where the data do not tell, or in place of what they tell.
        mean, std: of the channels, on the scale 0..1; one number is for all of them.

    Raises:
        ValueError: it is not known, or the network does not answer such a picture with logits or heat maps.
    """
    form = getattr(data, "image_format", None)
    if isinstance(task, PoseTask):
        mean, std = mean or (0.0,), std or (1.0,)  # a pose's manifest has its own
    if form is not None:
        known = shape or (form.num_channels, form.image_size, form.image_size)
        mean, std = mean or form.mean, std or form.std
    else:
        known = shape or picture_shape(data)
    if known is None:
        raise ValueError(f"{_name(data)} does not give the size of its pictures: pass --input_shape C,H,W")
    channels, height, width = known
    if height != width or channels not in (1, 3):
        raise ValueError(
            f"pictures of {channels} channels and {width}×{height} px cannot be shipped: a shipped model takes square "
            "ones of 1 or 3 channels"
        )
    if mean is None or std is None:
        raise ValueError(
            f"{_name(data)} has no image_format that says how a picture is prepared: pass --mean and --std of its "
            "channels, on the scale 0 to 1 (0 and 1 where pixels are only divided by 255)"
        )
    sizes = [tuple(values) * channels if len(values) == 1 else tuple(values) for values in (mean, std)]
    for option, values in zip(("--mean", "--std"), sizes, strict=True):
        if len(values) != channels:
            raise ValueError(
                f"{option} has {len(values)} numbers, but the pictures have {channels} channels: give one for each"
            )
    if not isinstance(task, PoseTask):
        _check_logits(task, known)
    resize_px = form.resize_px if form is not None and not shape else height
    return ImageFormat(channels, height, *sizes, resize_px)


def names_of_classes(task: L.LightningModule, data: Any) -> tuple[str, ...]:
    """Of the task, or else of the data; none where neither tells."""
    return tuple(map(str, getattr(task, "class_names", None) or getattr(data, "classes", None) or ()))


def _check_logits(task: L.LightningModule, shape: tuple[int, int, int]) -> None:
    network = getattr(task, "backbone", None)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{_name(task)} has no `backbone`, where the network is expected: give it that attribute")
    logits = answer(network, shape)
    if logits is not None and (not isinstance(logits, Tensor) or logits.ndim != 2):
        told = f"an answer of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the network gives {told}: only networks that give logits (N, classes), and those of PoseTask, can be "
            "shipped"
        )


def _name(thing: object) -> str:
    return type(thing).__name__
