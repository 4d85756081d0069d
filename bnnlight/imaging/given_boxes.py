"""The boxes that a command line gives, for each of its pictures."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnnlight.imaging.answers_json import PERSON
from bnnlight.imaging.box_files import ListedFile, PersonBox, key_of, read_boxes, read_listed, typed_box
from bnnlight.imaging.given_pictures import GivenPictures, check_sorted, sort_boxes, wanted_boxes
from bnnlight.imaging.reading import upright_size


@dataclass(frozen=True)
class GivenBoxes:
    """Pictures with the boxes in each.

    Attributes:
        pictures: found by name or id.
        boxes: of each picture, in the order in which they were given.
        left_out: why → how many boxes are not looked at.
        listed: the file with annotations, where one was given.
    """

    pictures: GivenPictures
    boxes: list[list[PersonBox]]
    left_out: dict[str, int]
    listed: ListedFile | None = None

    @property
    def files(self) -> Sequence[Path]:
        """Of the pictures."""
        return self.pictures.files

    def arrays(self, index: int) -> np.ndarray:
        """The boxes of a picture as ``(N, 4)`` float64."""
        return np.array([box.box for box in self.boxes[index]], np.float64).reshape(-1, 4)

    def told(self, index: int) -> list[dict[str, Any]]:
        """What is told of each box of a picture besides its place."""
        told = ({"box_score": box.score, "category_id": box.category_id} for box in self.boxes[index])
        return [{key: value for key, value in of_box.items() if value is not None} for of_box in told]

    def id_of(self, index: int, needed: bool) -> int | str | None:
        """A picture's id, as annotations or boxes have it; if one is needed, else its file's name.

        Raises:
            ValueError: one is needed, and the annotations do not have the picture; or its boxes have different ones.
        """
        listed = self.pictures.listing(index)
        told = [box for box in self.boxes[index] if box.image_id is not None]
        if listed is not None or (needed and not told):
            return self.pictures.id_of(index)
        other = next((box for box in told if key_of(box.image_id) != key_of(told[0].image_id)), None)
        if other is not None:
            raise ValueError(
                f"{other.where}: {self.files[index]} has the image_id {other.image_id} here and {told[0].image_id} in "
                "another entry: give each picture one id"
            )
        return told[0].image_id if told else None

    def check(self, turn: bool) -> None:
        """Look at all boxes before anything is computed, and tell on stderr of pictures that have changed their size.

        Args:
            turn: whether pictures are turned as their EXIF tag says.

        Raises:
            ValueError: a box has no size or lies outside its picture.
        """
        sizes = {index: upright_size(self.files[index], turn) for index, boxes in enumerate(self.boxes) if boxes}
        check_sorted(self.boxes, sizes.get)
        changed = []
        for index, size in sizes.items():
            listed = self.pictures.listing(index)
            if size and listed and listed.width and listed.height and size != (listed.width, listed.height):
                changed.append((index, size, (listed.width, listed.height)))
        if changed:
            index, size, told = changed[0]
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            advice = "pass --as_stored" if turn and size == told[::-1] else "give the pictures in their original size"
            print(
                f"warning: {self.files[index]} has {size[0]}×{size[1]} px, but by --annotations "
                f"{told[0]}×{told[1]}{more}: its boxes may lie elsewhere; {advice}",
                file=sys.stderr,
            )

    def check_joints(self, joints: Sequence[str]) -> None:
        """Compare a model's joints with those of the annotations that its results are to be measured against.

        Other names alone are told on stderr: data sets write them in many ways.

        Raises:
            ValueError: the annotations have another number of joints, or the same ones in another order.
        """
        if not self.listed or not self.listed.joints:
            return
        told = {key_of(PERSON if box.category_id is None else box.category_id) for some in self.boxes for box in some}
        known = self.listed.joints
        theirs = [known[key] for key in known if key in told] or [*known.values()]
        same_number = [names for names in theirs if len(names) == len(joints)]
        where, ours = f"{self.listed.path} (--annotations)", [_plain(name) for name in joints]
        if not same_number:
            raise ValueError(
                f"{where} has {len(theirs[0])} joints in its category, and the model finds {len(joints)}: results in "
                "COCO's form are measured against the same joints; give annotations of the model's, or leave --format "
                "coco out"
            )
        plain = [[_plain(name) for name in names] for names in same_number]
        if ours in plain:
            return
        names, index = next(
            (names, index)
            for names, some in zip(same_number, plain, strict=True)
            for index, name in enumerate(some)
            if name != ours[index]
        )
        text = f"{where}: joint {index} is {names[index]}, and the model's is {joints[index]}"
        if sorted(ours) in [sorted(some) for some in plain]:
            raise ValueError(f"{text}: they have the same joints in another order; give annotations in the model's")
        print(f"warning: {text}: what is measured is right only if they are the same", file=sys.stderr)

    def tell(self) -> None:
        """Print how many boxes were left out, if any."""
        if self.left_out:
            print(f"boxes left out: {', '.join(f'{number:,} {why}' for why, number in self.left_out.items())}")


def _plain(name: str) -> str:
    """A joint's name as it is compared: left_hip, Left Hip and left-hip are the same."""
    return " ".join(re.split(r"[\W_]+", name.lower())).strip()


def given_boxes(
    files: Sequence[Path],
    boxes: Sequence[str] | None = None,
    annotations: Path | None = None,
    min_score: float = 0.0,
    categories: str | None = None,
    skip_others: bool = False,
) -> GivenBoxes:
    """Read what was given, and find the picture of each box.

    Args:
        files: of the pictures. With boxes or annotations, one that is there twice is taken once.
        boxes: a JSON file, or ``x,y,w,h`` any number of times in one picture; None for none.
        annotations: JSON file whose ``images`` tell the file of an id.
        min_score: boxes below it are left out.
        categories: ids with commas between them, or "all".
        skip_others: whether boxes of pictures that are not among the files are left out.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is in another form, an entry is wrong, or nothing tells a box's picture.
    """
    if boxes or annotations:
        files = list({file.resolve(): file for file in reversed(files)}.values())[::-1]
    listed = read_listed(annotations) if annotations else None
    pictures = GivenPictures(files, listed.pictures if listed else None)
    if not boxes:
        return GivenBoxes(pictures, [[] for _ in files], {}, listed)
    paths = [text for text in boxes if Path(text).is_file() or "," not in text]
    if paths and len(boxes) > 1:
        raise ValueError(f"--boxes is given {len(boxes)} times: give one file, or x,y,w,h for each box of one picture")
    if not paths and len(files) > 1:
        raise ValueError(f"--boxes {boxes[0]} is a box in one picture, and {len(files)} are given: give a JSON file")
    read = read_boxes(Path(paths[0])) if paths else [typed_box(text) for text in boxes]
    if not read:
        raise ValueError(f"{paths[0]} has no boxes: leave --boxes out to look at whole pictures")
    if not paths:
        return GivenBoxes(pictures, [read], {}, listed)
    names = None if categories is None else [part.strip() for part in categories.split(",")]
    sorted_boxes, num_others = sort_boxes(read, pictures, skip_others)
    wanted, left_out = wanted_boxes([box for some in sorted_boxes for box in some], min_score, names)
    if num_others:
        left_out["of pictures that are not given"] = num_others
    chosen = {id(box) for box in wanted}
    kept = [[box for box in some if id(box) in chosen] for some in sorted_boxes]
    return GivenBoxes(pictures, kept, left_out, listed)
