"""Pose augmentation, and the transform from a picture and a person in it to a network's input."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from bnnlight.data.keypoints.person import PosePicture
from bnnlight.imaging.pose_crop import crop_to_image, normalize, warp
from bnnlight.imaging.skeletons import Skeleton

GREY = np.array([0.299, 0.587, 0.114])
"""Share of red, green and blue in grey (ITU-R BT.601)."""

# Loader processes are the parallelism; OpenCV's own threads would fight them for the cores.
cv2.setNumThreads(0)


@dataclass(frozen=True)
class PoseAugmentation:
    """Random changes to training pictures, each drawn uniformly.

    Attributes:
        scale: smallest and largest factor on the size of the box that is cut out.
        rotation_deg: largest rotation to either side.
        flip: probability of a mirror image; left and right joints are swapped with it.
        brightness, contrast, saturation: largest change of the factor 1.
        shift: largest move of the box along each axis, as a share of its side.
    """

    scale: tuple[float, float] = (0.75, 1.25)
    rotation_deg: float = 30.0
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    shift: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"augmentation.scale is [{low}, {high}]: give two factors above 0, the smaller one first")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"augmentation.flip is {self.flip}: give a probability, from 0 to 1")
        for name in ("rotation_deg", "brightness", "contrast", "saturation", "shift"):
            if getattr(self, name) < 0:
                raise ValueError(f"augmentation.{name} is {getattr(self, name)}: give 0 or more")


class PoseTransform:
    """Cuts a person out of a picture and makes a sample of it.

    Crop, scale, rotation and flip are one affine warp, bilinear, of the picture as it was read, or of its means
    over blocks of pixels where it is more than twice as large as needed. Brightness, contrast, saturation and
    normalization are one affine map of the colours. What lies outside the picture gets ImageNet's mean colour,
    which is zero after normalization.

    A sample is a dictionary of tensors (J joints, S = image_size):

    ========== ============== =====================================================================
    image      (3, S, S)      float32, normalized
    joints     (J, 2)         float32, x and y in pixels of the crop
    weight     (J,)           float32, 1 where annotated and inside both picture and crop, else 0
    truth      (J, 2)         float32, x and y in pixels of the stored picture
    annotated  (J,)           bool
    to_image   (2, 3)         float32, affine map from the crop's pixels to the stored picture's
    head_px    ()             float32, reference length of PCKh; NaN where it is not known
    torso_px   ()             float32, reference length of PCK; NaN where it is not known
    box_px     ()             float32, reference length of PCK by the box; NaN where it is not known
    area       ()             float32, px² of the stored picture, for OKS; NaN where it is not known
    nme_px     ()             float32, reference length of NME; NaN where it is not known
    entry      ()             int64, which entry of its file the person was, counted from 1; 0 where none is counted
    ========== ============== =====================================================================

    A flipped sample has its joints in swapped order throughout.

    Args:
        skeleton: says which joints are left and right, and which span the torso; None where no joint is known, as in a
            prediction.
        image_size: width and height of the crop, px.
        augmentation: None makes the transform deterministic. Random numbers come from torch's global
            generator, which :class:`bnnlight.data.keypoints.data_module.PoseView` seeds for each picture and epoch.
    """

    def __init__(
        self, skeleton: Skeleton | None, image_size: int, augmentation: PoseAugmentation | None = None
    ) -> None:
        self.skeleton, self.image_size, self.augmentation = skeleton, image_size, augmentation

    def __call__(self, picture: PosePicture) -> dict[str, Tensor]:
        person, size = picture.person, self.image_size
        random = self.augmentation
        # one draw for everything: -1 to 1
        u = (2 * torch.rand(8, dtype=torch.float64) - 1).tolist() if random else [0.0] * 8
        scale, angle, flipped = 1.0, 0.0, False
        center = np.asarray(person.center, np.float64)
        if random:
            low, high = random.scale
            scale = low + (high - low) * (u[0] + 1) / 2
            angle = np.deg2rad(random.rotation_deg) * u[1]
            flipped = (u[2] + 1) / 2 < random.flip
            center = center + random.shift * person.side_px * np.array(u[6:8])
        to_image = crop_to_image(center, scale * person.side_px, angle, flipped, size)
        order = list(self.skeleton.mirrored) if flipped else slice(None)
        truth = np.asarray(person.joints, np.float64)[order]
        annotated = np.asarray(person.annotated, bool)[order]
        joints = np.linalg.solve(to_image[:, :2], (truth - to_image[:, 2]).T).T
        height, width = (picture.shrink * side for side in picture.image.shape[:2])
        inside = _within(joints, size, size) & _within(truth, width, height)
        image = self._colours(warp(picture.image, to_image, size, picture.shrink), u[3:6])
        torso = list(self.skeleton.torso) if self.skeleton else []
        torso_px = np.linalg.norm(truth[torso[0]] - truth[torso[1]]) if torso and annotated[torso].all() else np.nan
        return {
            "image": torch.from_numpy(image),
            "joints": torch.from_numpy(joints.astype(np.float32)),
            "weight": torch.from_numpy((annotated & inside).astype(np.float32)),
            "truth": torch.from_numpy(truth.astype(np.float32)),
            "annotated": torch.from_numpy(annotated.copy()),
            "to_image": torch.from_numpy(to_image.astype(np.float32)),
            "head_px": torch.tensor(person.head_px, dtype=torch.float32),
            "torso_px": torch.tensor(torso_px, dtype=torch.float32),
            "box_px": torch.tensor(person.box_px, dtype=torch.float32),
            "area": torch.tensor(person.area, dtype=torch.float32),
            "nme_px": torch.tensor(person.nme_px, dtype=torch.float32),
            "entry": torch.tensor(person.entry, dtype=torch.int64),
        }

    def _colours(self, pixels: np.ndarray, u: list[float]) -> np.ndarray:
        if not self.augmentation:
            return normalize(pixels)
        brightness = 1 + self.augmentation.brightness * u[0]
        contrast = 1 + self.augmentation.contrast * u[1]
        saturation = 1 + self.augmentation.saturation * u[2]
        mix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * GREY)
        offset = brightness * (1 - contrast) * (GREY @ cv2.mean(pixels)[:3])
        return normalize(pixels, mix=mix, offset=offset)


def _within(joints: np.ndarray, width: float, height: float) -> np.ndarray:
    """Whether joints ``(J, 2)`` lie in the area of the pixels."""
    return ((joints >= -0.5) & (joints < np.array([width, height]) - 0.5)).all(1)
