"""Checks pose annotations before training, and reads MATLAB files; errors name the entry."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from bnnlight.data.keypoints.annotations import PosePeople
from bnnlight.data.keypoints.pictures import picture_sizes
from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.imaging.reading import one_line
from bnnlight.imaging.skeletons import Skeleton

ROUNDING_PX = 1.0
"""How far a joint may lie outside its picture without a word."""
_ANY_PX = 2**30
"""Width and height of a picture about whose size nothing is known."""
FAR = 1 / 4
"""How far a joint may lie outside its picture at all, as a share of the picture's longer side."""


def read_mat(path: Path, fields: tuple[str, ...], advice: str, squeeze: bool = False) -> dict[str, Any]:
    """Read variables of a MATLAB file.

    Args:
        path: of the file.
        fields: the variables.
        advice: what to do if the file is missing or a different one.
        squeeze: drop dimensions of size 1.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or lacks a variable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"annotations not found: looked for {path}; {advice}")
    try:
        content = scipy.io.loadmat(path, appendmat=False, struct_as_record=False, squeeze_me=squeeze)
    except Exception as error:
        # a damaged file makes scipy stumble in many ways
        raise ValueError(f"{path} cannot be read as a MATLAB file ({one_line(error)}); {advice}") from error
    names = [name for name in content if not name.startswith("__")]
    lacking = [name for name in fields if name not in names]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}: it holds {', '.join(names) or 'nothing'}; {advice}")
    return {name: content[name] for name in fields}


def and_more(number: int) -> str:
    """Say, in a message, how many others are like the one that was named."""
    return f" (and {number} more)" if number else ""


def list_pictures(folder: Path, advice: str) -> set[str]:
    """List the names in a folder of pictures, in one go: looking for each of 25,000 files takes long.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"pictures not found: looked for the folder {folder}; {advice}")
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def in_folders(people: PosePeople, root: Path, folders: Sequence[str], advice: str) -> PosePeople:
    """The same people, with their pictures' names prefixed by the folder that has the picture.

    A picture that is in none keeps its name.

    Args:
        people: with names from one of the folders.
        root: of the folders.
        folders: below it.
        advice: what to do if a folder is missing.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a picture is in two of them.
    """
    there = [(folder, list_pictures(root / folder, advice)) for folder in folders]
    names, index = np.unique(people.images, return_inverse=True)
    places = []
    for name in names.tolist():
        found = [f"{folder}/{name}" for folder, content in there if name in content or (root / folder / name).is_file()]
        if len(found) > 1:
            raise ValueError(
                f"{people.file}: its picture {name} is {' and '.join(found)}: put the folder before its name"
            )
        places.append(found[0] if found else name)
    return replace(people, images=np.array(places, str)[index])


def check_pictures(people: PosePeople, folder: Path, advice: str) -> None:
    """Check that all pictures are there.

    Raises:
        FileNotFoundError: If the folder or a picture is missing.
    """
    there = list_pictures(folder, advice)
    # a picture may lie in a folder below, "day1/a.jpg"
    wanted = np.unique(people.images).tolist()
    missing = {name for name in wanted if name not in there and not (folder / name).is_file()}
    if missing:
        index = next(i for i, name in enumerate(people.images.tolist()) if name in missing)
        raise FileNotFoundError(
            f"{people.where(index)}: its picture is not in {folder}{and_more(len(missing) - 1)}; {advice}"
        )


def check_finite(people: PosePeople, skeleton: Skeleton) -> None:
    """Check that the positions of annotated joints are numbers.

    Raises:
        ValueError: If one is infinite or not a number.
    """
    wrong = np.argwhere(people.annotated & ~np.isfinite(people.joints).all(2))
    if len(wrong):
        index, joint = wrong[0]
        x, y = people.joints[index, joint]
        raise ValueError(f"{people.where(index)}: {skeleton.joints[joint]} is at ({x}, {y}); correct the entry")


def stored_sizes(people: PosePeople, folder: Path, on_bad_image: OnBadImage = "stop") -> np.ndarray:
    """Width and height of each one's picture, ``(N, 2)``, px, from the files' headers; 0 for one that is skipped.

    Raises:
        OSError: If the header of a picture cannot be read, unless such pictures are skipped.
    """
    names, index = np.unique(people.images, return_inverse=True)
    return picture_sizes([folder / name for name in names.tolist()], on_bad_image)[index]


def check_inside(people: PosePeople, sizes: np.ndarray, skeleton: Skeleton, far: float = FAR) -> None:
    """Compare the joints with the sizes of the pictures.

    Annotators put some joints a little outside, such as the top of a head that the edge cuts off: those are
    worth a warning. Nothing is known about a picture that is skipped.

    Args:
        people: whose joints to compare.
        sizes: of their pictures, see :func:`stored_sizes`.
        skeleton: names of the joints.
        far: how far a joint may lie outside at all, as a share of the picture's longer side.

    Raises:
        ValueError: If a joint lies farther outside.
    """
    sizes = np.where(sizes > 0, sizes, _ANY_PX)
    # joints that are not annotated stand at 0, which is inside
    outside_px = np.maximum(-0.5 - people.joints, people.joints - (sizes[:, None] - 0.5)).max(2)

    def describe(place: np.ndarray) -> str:
        person, joint = place
        (x, y), (width, height) = people.joints[person, joint] + people.origin, sizes[person]
        name = skeleton.joints[joint]
        return f"{people.where(person)}: {name} at ({x:.1f}, {y:.1f}) lies outside the picture of {width}×{height} px"

    wrong = np.argwhere(outside_px > far * sizes.max(1)[:, None])
    if len(wrong):
        share = "a quarter of its longer side" if far == FAR else f"{far:g} × its longer side"
        raise ValueError(
            f"{describe(wrong[0])} by more than {share}{and_more(len(wrong) - 1)}; "
            "take the annotations and the pictures from the same release, pictures in their original size"
        )
    near = np.argwhere(outside_px > ROUNDING_PX)
    if len(near):
        rank_zero_warn(f"{describe(near[0])}{and_more(len(near) - 1)}; joints outside are not trained on")
