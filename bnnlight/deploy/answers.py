"""From pictures to classes or joints with a shipped network: what is done before and after it, as its manifest says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from bnnlight.deploy.manifest import Manifest
from bnnlight.imaging import heatmaps
from bnnlight.imaging.boxes import Square
from bnnlight.imaging.class_input import class_input
from bnnlight.imaging.classes import softmax, top_classes
from bnnlight.imaging.pose_crop import cut_out
from bnnlight.imaging.reading import turned

Network = Callable[[np.ndarray], np.ndarray]
"""``(N, C, H, W)`` float32 → the network's output."""


def name_classes(
    network: Network, manifest: Manifest, pictures: Sequence[Image.Image], top: int
) -> list[dict[str, Any]]:
    """The most probable classes of each picture.

    Args:
        network: gives logits ``(N, classes)``.
        manifest: of a classification network.
        pictures: of any 8-bit mode and any size; at least one. Each is looked at upright, as its EXIF tag says.
        top: how many classes to name.

    Returns:
        For each picture ``{"classes": [{"class": …, "probability": …}, …]}``, best first.

    Raises:
        ValueError: a picture has more than 8 bits a channel, or the output is of another kind.
    """
    form = manifest.input
    resize_px = form.size_px if form.resize_px is None else form.resize_px
    options = (form.channels, form.size_px, resize_px, form.mean, form.std)
    logits = network(np.stack([class_input(turned(picture), *options) for picture in pictures]))
    classes = len(manifest.classes)
    if logits.ndim != 2 or (classes and logits.shape[1] != classes):
        raise ValueError(f"the network gives {logits.shape}: wanted (N, {classes or 'classes'}), as its manifest says")
    return [{"classes": top_classes(row, manifest.classes, top)} for row in softmax(logits)]


def find_joints(
    network: Network, manifest: Manifest, images: Sequence[np.ndarray], squares: Sequence[Square]
) -> list[dict[str, Any]]:
    """The joints of one person in each picture.

    Args:
        network: gives heat maps ``(N, stacks, J, h, w)``; the last stack is the answer.
        manifest: of a pose network.
        images: ``(H, W, 3)`` uint8 each, RGB; at least one.
        squares: middle and side of what is cut out of each.

    Returns:
        For each picture ``{"joints": [{"joint": …, "x": …, "y": …, "confidence": …}, …]}``, in pixels of the
        picture; (0, 0) is the middle of the top left one.

    Raises:
        ValueError: the output is of another kind.
    """
    form, skeleton = manifest.input, manifest.skeleton
    crops = [
        cut_out(image, *square, form.size_px, form.mean, form.std)
        for image, square in zip(images, squares, strict=True)
    ]
    images, to_image = (np.stack(part) for part in zip(*crops, strict=True))
    maps = _answer(network, images, manifest)
    if manifest.flip_test:
        mirrored = _answer(network, np.ascontiguousarray(images[..., ::-1]), manifest)
        maps = (maps + heatmaps.mirror(mirrored, skeleton.mirrored)) / 2
    places, confidences = heatmaps.decode(maps)
    in_crop = heatmaps.to_input(places, form.size_px / maps.shape[-1])
    in_picture = in_crop @ to_image[:, :, :2].transpose(0, 2, 1) + to_image[:, None, :, 2]
    return skeleton.records(in_picture.tolist(), confidences.clip(0, 1).tolist())


def _answer(network: Network, images: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Heat maps of the last stack, ``(N, J, h, w)``."""
    maps = network(images)
    joints = len(manifest.skeleton.joints)
    if maps.ndim != 5 or maps.shape[2] != joints:
        raise ValueError(f"the network gives {maps.shape}: wanted (N, stacks, {joints}, h, w), as its manifest says")
    return heatmaps.sigmoid(maps[:, -1]) if manifest.sigmoid else maps[:, -1]
