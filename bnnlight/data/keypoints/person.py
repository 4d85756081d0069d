"""`Person` and `PosePicture`: one annotated person, and the picture that it is in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Person:
    """One annotated person. Coordinates are pixels of the picture as it is stored: x to the right, y down,
    (0, 0) in the middle of the top left pixel.

    Attributes:
        joints: ``(J, 2)`` float32, x and y; any number where not annotated.
        annotated: ``(J,)`` bool.
        center: ``(2,)`` float32, middle of the square box that is cut out.
        side_px: side of the box.
        head_px: 0.6 × the diagonal of the head box, the reference length of PCKh; NaN where there is none.
        box_px: longer side of the box that was annotated, without padding, the reference length of PCK by the box;
            NaN where there is none.
        area: of the person in px², the reference of OKS; NaN where it is not known.
        nme_px: reference length of NME; NaN where it is not known.
        entry: which entry of its file the person was, counted from 1; 0 where none is counted.
    """

    joints: np.ndarray
    annotated: np.ndarray
    center: np.ndarray
    side_px: float
    head_px: float = float("nan")
    box_px: float = float("nan")
    area: float = float("nan")
    nme_px: float = float("nan")
    entry: int = 0


@dataclass(frozen=True)
class PosePicture:
    """A picture with the person to be found in it.

    Attributes:
        image: ``(H, W, 3)`` uint8, RGB.
        person: in pixels of the picture as it is stored.
        shrink: how many times smaller than stored the image was read (1, 2, 4 or 8).
    """

    image: np.ndarray
    person: Person
    shrink: int = 1
