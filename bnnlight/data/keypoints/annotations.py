"""Annotated people as arrays, the data set of their pictures, and the split that holds pictures out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from bnnlight.data.keypoints.person import Person, PosePicture
from bnnlight.data.keypoints.pictures import read_picture
from bnnlight.data.keypoints.transforms import PoseAugmentation


@dataclass(frozen=True)
class PosePeople:
    """People of one annotation file, N with J joints each.

    Arrays, since lists of objects end up copied in the memory of every loader process.
    Coordinates are those of :class:`bnnlight.data.keypoints.person.Person`.

    Attributes:
        file: that they were read from.
        numbers: ``(N,)``, which entry of the file each was, counted from 1.
        num_entries: of the file.
        origin: what the file calls the middle of the top left pixel: 1 in MATLAB's count, 0.5 where
            coordinates are counted from the picture's corner. For messages.
        images: ``(N,)`` str, names of the pictures.
        joints: ``(N, J, 2)`` float32, px; 0 where not annotated.
        annotated: ``(N, J)`` bool.
        center: ``(N, 2)`` float32, px.
        side_px: ``(N,)`` float32.
        head_px: ``(N,)`` float32; NaN where not known.
        area: ``(N,)`` float32, px² of the person; NaN where not known. None where the file has no such thing; likewise
            the next four.
        nme_px: ``(N,)`` float32, reference length of NME; NaN where not known.
        box: ``(N, 4)`` float32, x, y, width, height of the box that was annotated, px; x and y of its corner.
        image_ids, ids: ``(N,)`` int64 or str, of the picture and of the annotation, as in the file.
    """

    file: Path
    numbers: np.ndarray
    num_entries: int
    origin: float
    images: np.ndarray
    joints: np.ndarray
    annotated: np.ndarray
    center: np.ndarray
    side_px: np.ndarray
    head_px: np.ndarray
    area: np.ndarray | None = None
    nme_px: np.ndarray | None = None
    box: np.ndarray | None = None
    image_ids: np.ndarray | None = None
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: np.ndarray) -> PosePeople:
        """Return some of the people, by index or by a mask ``(N,)``."""
        names = ("numbers", "images", "joints", "annotated", "center", "side_px", "head_px")
        filled = [name for name in ("area", "nme_px", "box", "image_ids", "ids") if getattr(self, name) is not None]
        return replace(self, **{name: getattr(self, name)[chosen] for name in (*names, *filled)})

    def where(self, index: int) -> str:
        """Say, for a message, where in the file a person is."""
        return f"{self.file}: entry {self.numbers[index]} of {self.num_entries} ({self.images[index]})"

    def person(self, index: int) -> Person:
        """Return one of the people."""
        return Person(
            self.joints[index],
            self.annotated[index],
            self.center[index],
            float(self.side_px[index]),
            float(self.head_px[index]),
            float("nan") if self.box is None else float(self.box[index, 2:].max()),
            float("nan") if self.area is None else float(self.area[index]),
            float("nan") if self.nme_px is None else float(self.nme_px[index]),
            int(self.numbers[index]),
        )


class PoseFiles:
    """People with the pictures that they are in, each read from its file when needed.

    Args:
        people: who.
        folder: holds the pictures.
        image_size: width and height of the network's input, px; pictures are read no finer than it needs.
        augmentation: which the pictures will go through.
    """

    def __init__(
        self, people: PosePeople, folder: Path, image_size: int, augmentation: PoseAugmentation | None = None
    ) -> None:
        self.people, self.folder, self.image_size = people, folder, image_size
        self.smallest = augmentation.scale[0] if augmentation else 1.0

    def __len__(self) -> int:
        return len(self.people)

    def file(self, index: int) -> Path:
        """Of the picture that a person is in."""
        return self.folder / str(self.people.images[index])

    def __getitem__(self, index: int) -> PosePicture:
        person = self.people.person(index)
        image, shrink = read_picture(self.file(index), self.smallest * person.side_px, self.image_size)
        return PosePicture(image, person, shrink)


def hold_out(groups: Sequence, val_size: int | float, seed: int, source: str | Path) -> np.ndarray:
    """Choose groups of items; the choice depends on the arguments alone, never on a global random state.

    Args:
        groups: the group of each item, such as the name of its picture; a group is chosen as a whole.
        val_size: how many groups to choose: below 1 a fraction of them, else a number.
        seed: of the choice.
        source: what the items come from, for the error message.

    Returns:
        ``(N,)`` bool, whether an item was chosen.

    Raises:
        ValueError: If that would leave no group on one of the sides.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    num_chosen = round(val_size * len(names) if val_size < 1 else val_size)
    if not 0 < num_chosen < len(names):
        raise ValueError(
            f"cannot hold out validation pictures from {source}: val_size {val_size} asks for {num_chosen} of "
            f"{len(names)}; set it to a number from 1 to {len(names) - 1}"
        )
    _, chosen = train_test_split(np.arange(len(names)), test_size=num_chosen, random_state=seed)
    return np.isin(group, chosen)
