"""Which of the given pictures a box is in, and which boxes are looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from bnnlight.imaging.box_files import ListedPicture, PersonBox, key_of
from bnnlight.imaging.boxes import fault_of


class GivenPictures:
    """The pictures that were given, found by their names or by ids.

    Args:
        files: none of them twice.
        listed: of :func:`read_pictures`; None: where a file's name is the id, as 000000000785.jpg of 785.
    """

    def __init__(self, files: Sequence[Path], listed: dict[str, ListedPicture] | None) -> None:
        self.files, self.listed = files, listed
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        for index, file in enumerate(files):
            self._by_name[file.name].append(index)
            for stem in {file.stem, file.stem.lstrip("0") or "0"} if file.stem.isdecimal() else {file.stem}:
                self._by_stem[stem].append(index)
        self._found: dict[tuple[str | None, str], list[int]] = {}
        # the other way round: ids of given files
        self._ids: dict[int, ListedPicture] = {}
        for picture in (listed or {}).values():
            for index in self._named(picture.file_name):
                self._ids[index] = picture

    def find(self, box: PersonBox) -> int | None:
        """Index of the file that a box is of; None where it is not given.

        Raises:
            ValueError: nothing says which file it is, or several have its name.
        """
        key = box.file_name, key_of(box.image_id)
        if key not in self._found:
            self._found[key] = self._look_for(box)
        found = self._found[key]
        if len(found) > 1:
            files = " and ".join(str(self.files[index]) for index in found[:2])
            raise ValueError(f"{box.where}: {box.picture} may be {files}: give one of the two, or a longer file_name")
        return found[0] if found else None

    def listing(self, index: int) -> ListedPicture | None:
        """What the annotations say of a file."""
        return self._ids.get(index)

    def id_of(self, index: int) -> int | str:
        """A file's id: as the annotations have it, else its name, as a number where it is one.

        Raises:
            ValueError: the annotations do not have it.
        """
        if index in self._ids:
            return self._ids[index].image_id
        file = self.files[index]
        if self.listed is not None:
            raise ValueError(f"{file} is not among the images of --annotations: leave it out, or add it there")
        # text as "0xff" or "²" is no number
        return int(file.stem) if file.stem.isdecimal() and file.stem.isascii() else file.stem

    def _look_for(self, box: PersonBox) -> list[int]:
        if box.file_name is not None:
            return self._named(box.file_name)
        key = key_of(box.image_id)
        if self.listed is None:
            return self._by_stem.get(key, [])
        if key not in self.listed:
            raise ValueError(
                f"{box.where}: image_id {box.image_id} is none of the {len(self.listed)} images of --annotations: give "
                "the file that the boxes were made for"
            )
        return self._named(self.listed[key].file_name)

    def _named(self, name: str) -> list[int]:
        parts = [part for part in PurePath(name).parts if part != "."]
        candidates = self._by_name.get(parts[-1], []) if parts else []
        return [index for index in candidates if _ends_with(self.files[index], parts)]


def sort_boxes(
    boxes: Sequence[PersonBox], pictures: GivenPictures, skip_others: bool
) -> tuple[list[list[PersonBox]], int]:
    """The boxes of each given picture, in their order, and how many are of others.

    Raises:
        ValueError: a box is of a picture that is not given, and such boxes are not skipped; or nothing says which
            picture it is of.
    """
    sorted_boxes: list[list[PersonBox]] = [[] for _ in pictures.files]
    others = []
    for box in boxes:
        index = pictures.find(box)
        if index is None:
            others.append(box)
        else:
            sorted_boxes[index].append(box)
    if others and (not skip_others or len(others) == len(boxes)):
        first, more = others[0], f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        told = pictures.listed is None and first.file_name is None
        advice = "give it too, or --annotations if its name is not the id" if told else "give it too"
        skip = "" if len(others) == len(boxes) else ", or pass --on_missing_image skip"
        raise ValueError(f"{first.where}{more}: the picture of {first.picture} is not among the images: {advice}{skip}")
    return sorted_boxes, len(others)


def check_sorted(sorted_boxes: Sequence[Sequence[PersonBox]], size_of: Callable[[int], tuple[int, int] | None]) -> None:
    """Makes sure that boxes have a size and touch their pictures.

    Args:
        sorted_boxes: of each picture.
        size_of: from a picture's index to its width and height, px; None where it cannot be read.

    Raises:
        ValueError: one does not; the message names it.
    """
    for index, boxes in enumerate(sorted_boxes):
        size = size_of(index) if boxes else None
        for box in boxes:
            if fault := fault_of(box.box, size):
                raise ValueError(f"{box.where}: the box {fault}; correct it, or leave it out")


def wanted_boxes(
    boxes: Sequence[PersonBox], min_score: float, categories: Sequence[str] | None
) -> tuple[list[PersonBox], dict[str, int]]:
    """Boxes to look at, and how many were left out for what.

    Args:
        boxes: all. One without a score is looked at, whatever is asked.
        min_score: least score.
        categories: ids as text; None takes all, which must be one.

    Raises:
        ValueError: there are several categories and none is chosen, or the chosen ones are not there.
    """
    known = list(dict.fromkeys(str(box.category_id) for box in boxes if box.category_id is not None))
    shown = ", ".join(known[:5]) + (" …" if len(known) > 5 else "")
    if categories is None and len(known) > 1:
        raise ValueError(f"the boxes are of {len(known)} categories, {shown}: pass --box_category with ids, or all")
    chosen = None if categories in (None, ["all"]) else {*categories}
    if chosen is not None and not chosen & {*known}:
        asked = ", ".join(categories)
        raise ValueError(f"--box_category {asked}: the boxes are of {shown or 'no category'}; choose of these")
    of_category = [box for box in boxes if chosen is None or str(box.category_id) in chosen]
    wanted = [box for box in of_category if box.score is None or box.score >= min_score]
    left_out = {
        "of other categories": len(boxes) - len(of_category),
        f"below --min_box_score {min_score:g}": len(of_category) - len(wanted),
    }
    return wanted, {why: number for why, number in left_out.items() if number}


def _ends_with(file: Path, parts: list[str]) -> bool:
    whole = (file if len(file.parts) >= len(parts) else file.absolute()).parts
    return list(whole[-len(parts) :]) == parts
