"""From pictures to classes or joints with a shipped network: what is done before and after it, as its manifest says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from bnnlight.deploy.manifest import Manifest
from bnnlight.imaging import heatmaps
from bnnlight.imaging.boxes import PADDING, Square, find_people
from bnnlight.imaging.class_input import class_input
from bnnlight.imaging.classes import softmax, top_classes
from bnnlight.imaging.pose_crop import cut_out
from bnnlight.imaging.reading import turned, upright

Network = Callable[[np.ndarray], np.ndarray]
"""``(N, C, H, W)`` float32 → the network's output."""


def name_classes(
    network: Network, manifest: Manifest, pictures: Sequence[Image.Image], top: int
) -> list[dict[str, Any]]:
    """The most probable classes of each picture.

    Args:
        network: gives logits ``(N, classes)``.
        manifest: of a classification network.
        pictures: of any size, of 8 bits or grey of 16; at least one. Each is looked at upright, as its EXIF tag says.
        top: how many classes to name.

    Returns:
        For each picture ``{"classes": [{"class": …, "probability": …}, …]}``, best first.

    Raises:
        ValueError: a picture has 32 bits a channel, or the output is of another kind.
    """
    form = manifest.input
    resize_px = form.size_px if form.resize_px is None else form.resize_px
    options = (form.channels, form.size_px, resize_px, form.mean, form.std)
    logits = network(np.stack([class_input(turned(picture), *options) for picture in pictures]))
    classes = len(manifest.classes)
    if logits.ndim != 2 or (classes and logits.shape[1] != classes):
        raise ValueError(
            f"the network gives {logits.shape}: expected (N, {classes or 'classes'}), as its manifest says"
        )
    return [{"classes": top_classes(row, manifest.classes, top)} for row in softmax(logits)]


def find_joints(
    network: Network,
    manifest: Manifest,
    pictures: Sequence[Image.Image],
    boxes: Sequence[np.ndarray] | None = None,
    box_padding: float | None = None,
    batch_size: int = 32,
) -> list[dict[str, Any]]:
    """The joints of the one person that fills each picture, or of the people in boxes.

    Args:
        network: gives heat maps ``(N, stacks, J, h, w)``; the last stack is the answer.
        manifest: of a pose network.
        pictures: of any size, of 8 bits or grey of 16.
        boxes: ``(N, 4)`` of each picture: x and y of the corner, width, height, px of the picture held upright.
        box_padding: side of the square that is cut out by the longer side of a box; None: as the manifest has it.
        batch_size: most people that the network is handed at once.

    Returns:
        For each picture ``{"joints": [{"joint": …, "x": …, "y": …, "confidence": …}, …]}``, in pixels of the
        picture held upright; (0, 0) is the middle of the top left one. With boxes ``{"people": …}``, as
        :func:`bnnlight.imaging.boxes.find_people` has it.

    Raises:
        ValueError: a picture has 32 bits a channel, the padding is not above 0, or the output is of another
            kind.
    """
    padding = box_padding if box_padding is not None else manifest.input.box_padding or PADDING
    if not 0 < padding < np.inf:
        raise ValueError(f"box_padding is {box_padding}: give a factor above 0, such as {PADDING}")
    images = [upright(picture) for picture in pictures]
    return find_people(images, boxes, padding, batch_size, partial(_joints_in, network, manifest))


def _joints_in(
    network: Network, manifest: Manifest, images: Sequence[np.ndarray], squares: Sequence[Square]
) -> list[dict[str, Any]]:
    """The joints of one person in a square of each picture ``(H, W, 3)``."""
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
        raise ValueError(f"the network gives {maps.shape}: expected (N, stacks, {joints}, h, w), as its manifest says")
    return heatmaps.sigmoid(maps[:, -1]) if manifest.sigmoid else maps[:, -1]
