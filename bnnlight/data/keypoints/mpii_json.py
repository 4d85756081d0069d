"""Reads MPII's people from JSON lists, the form that HRNet's authors introduced."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from bnnlight.data.keypoints.annotations import PosePeople
from bnnlight.data.keypoints.checks import check_finite
from bnnlight.imaging.skeletons import MPII

Boxes = Literal["auto", "raw", "padded"]

SCALE_PX = 200
"""What a scale of 1 means: the person is so many pixels tall."""
PADDING = 1.25
"""Side of the box by the person's height."""
DOWN_PX = 15
"""How far the box's middle lies below the annotated one, at a scale of 1."""
_FIELDS = ("image", "center", "scale", "joints", "joints_vis")
_WHOLE = 1e-3
_MOST = 2 / 3
"""Share of the centres that has to fit a form, so that a few which were corrected by hand do not change it."""


def read_json(path: Path, boxes: Boxes, advice: str) -> PosePeople:
    """Read a list of people.

    An entry has image (the picture's name), center, scale, joints (16 pairs) and joints_vis (16 numbers, 0
    where a joint is not annotated); coordinates count from 1.

    There are two forms of such files. In the raw one center and scale are MPII's own, and the box is still to
    be widened and moved down; in the padded one both have been done, and doing it again would make people too
    small.

    Args:
        path: of the file.
        boxes: "raw", "padded", or "auto", which looks at the whole file: MPII's own centres are whole numbers, and
            what most people fit is the form of all.
        advice: what to do if the file is missing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such a list, an entry is wrong, or the form is unclear.
    """
    if not path.is_file():
        raise FileNotFoundError(f"annotations not found: looked for {path}; {advice}")
    try:
        entries = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply: it is not a list of people; {advice}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it may have been cut off: fetch it again") from error
    if not isinstance(entries, list) or not entries:
        content = "an empty list" if entries == [] else f"a {type(entries).__name__}"
        raise ValueError(f"{path} holds {content}, where a list of people with {', '.join(_FIELDS)} belongs; {advice}")
    rows = []
    for number, entry in enumerate(entries, 1):
        try:
            rows.append(_read_entry(entry))
        except ValueError as error:
            name = f" ({entry['image']})" if isinstance(entry, dict) and "image" in entry else ""
            raise ValueError(f"{path}: entry {number} of {len(entries)}{name}: {error}; correct the entry") from error
    images, center, scale, joints, annotated = (np.array(column) for column in zip(*rows, strict=True))
    # a place that tools write for "none", besides a visibility of 0
    annotated &= ~(joints == -1).all(2)
    if _are_raw(path, boxes, center[:, 1], scale):
        center, scale = padded(center, scale)
    people = PosePeople(
        file=path,
        numbers=np.arange(1, len(entries) + 1),
        num_entries=len(entries),
        origin=1,
        images=images,
        joints=np.where(annotated[..., None], joints - 1, 0).astype(np.float32),
        annotated=annotated,
        center=(center - 1).astype(np.float32),
        side_px=(scale * SCALE_PX).astype(np.float32),
        head_px=np.full(len(entries), np.nan, np.float32),
    )
    check_finite(people, MPII)
    return people


def padded(center: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From MPII's own centres ``(N, 2)`` and scales ``(N,)`` to those of the box."""
    down = np.stack((np.zeros_like(scale), DOWN_PX * scale), 1)
    return center + down, scale * PADDING


def _read_entry(entry: Any) -> tuple[str, np.ndarray, float, np.ndarray, np.ndarray]:
    if not isinstance(entry, dict):
        raise ValueError(f"is a {type(entry).__name__}, not an object with {', '.join(_FIELDS)}")
    lacking = [name for name in _FIELDS if name not in entry]
    if lacking:
        raise ValueError(f"lacks {', '.join(lacking)}")
    image = entry["image"]
    if not isinstance(image, str) or not image:
        raise ValueError(f"image is {image!r}, not the name of a picture")
    num_joints = len(MPII.joints)
    center = _numbers(entry, "center", (2,))
    scale = float(_numbers(entry, "scale", ()))
    joints = _numbers(entry, "joints", (num_joints, 2))
    visible = _numbers(entry, "joints_vis", (num_joints,))
    if not np.isfinite(center).all():
        raise ValueError(f"center is {entry['center']}")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale is {entry['scale']}, where a positive number belongs")
    return image, center, scale, joints, visible > 0


def _numbers(entry: dict[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        numbers = np.array(entry[name], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds something that is not a number, or rows of unequal length") from error
    if numbers.shape != shape:
        expected = "×".join(map(str, shape)) or "one"
        actual = "×".join(map(str, numbers.shape)) or "one"
        raise ValueError(f"{name} holds {actual} numbers where MPII has {expected}")
    return numbers


def _are_raw(path: Path, boxes: Boxes, y: np.ndarray, scale: np.ndarray) -> bool:
    if boxes != "auto":
        return boxes == "raw"
    # what was added to the raw y, in terms of the padded scale
    raw, undone = _are_whole(y), _are_whole(y - DOWN_PX / PADDING * scale)
    shares = f"{raw.mean():.0%} of the centres fit the raw form, {undone.mean():.0%} the padded one"
    # of those that fit both forms, or none, nothing can be told
    only_raw, only_padded = int((raw & ~undone).sum()), int((undone & ~raw).sum())
    are_padded = only_padded > only_raw
    most, least = max(only_raw, only_padded), min(only_raw, only_padded)
    if (undone if are_padded else raw).mean() < _MOST or most < 2 * max(least, 0.5):
        raise ValueError(
            f"{path}: it cannot be told whether its boxes were already widened ({shares}): pass --data.boxes raw, for "
            "centres and scales as MPII has them, or --data.boxes padded"
        )
    rank_zero_info(f"{path}: boxes read as {'padded' if are_padded else 'raw'} ({shares}); --data.boxes to set it")
    return not are_padded


def _are_whole(numbers: np.ndarray) -> np.ndarray:
    return np.abs(numbers - np.round(numbers)) <= _WHOLE
