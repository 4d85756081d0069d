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
        listed: of :class:`bnnlight.imaging.box_files.ListedFile`; None: where a file's name is the id, as
            000000000785.jpg of 785.

    Raises:
        ValueError: two listed pictures have the name of a file.
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
        self._ids = self._listings()
        self._by_id: dict[str, list[int]] = defaultdict(list)
        for index, picture in self._ids.items():
            self._by_id[key_of(picture.image_id)].append(index)

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

    def name_of(self, box: PersonBox) -> str:
        """The file's name that the annotations have for a box's picture."""
        return self.listed[key_of(box.image_id)].file_name

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
        # text as "0xff" or "²" is not a number
        return int(file.stem) if file.stem.isdecimal() and file.stem.isascii() else file.stem

    def _look_for(self, box: PersonBox) -> list[int]:
        if box.file_name is not None:
            files, parts = self._named(box.file_name), _parts(box.file_name)
            exact = [index for index in files if index in self._ids and _parts(self._ids[index].file_name) == parts]
            return exact or files
        key = key_of(box.image_id)
        if self.listed is None:
            return self._by_stem.get(key, [])
        if key not in self.listed:
            raise ValueError(
                f"{box.where}: image_id {box.image_id} is not one of the {len(self.listed)} images of --annotations: "
                "give the file that the boxes were made for"
            )
        return self._by_id.get(key, [])

    def _listings(self) -> dict[int, ListedPicture]:
        """Each given file's entry: of names that end its path the longest, as day1/a.jpg before a.jpg.

        Raises:
            ValueError: two pictures have this name.
        """
        found: dict[int, ListedPicture] = {}
        for picture in (self.listed or {}).values():
            length = len(_parts(picture.file_name))
            for index in self._named(picture.file_name):
                earlier = len(_parts(found[index].file_name)) if index in found else 0
                if length == earlier:
                    ids = f"{found[index].image_id} and {picture.image_id}"
                    raise ValueError(
                        f"{self.files[index]}: the images {ids} of --annotations are both {picture.file_name}: "
                        "give each picture a name of its own"
                    )
                if length > earlier:
                    found[index] = picture
        return found

    def _named(self, name: str) -> list[int]:
        parts = _parts(name)
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
        name = f", {pictures.name_of(first)}," if first.file_name is None and pictures.listed is not None else ""
        raise ValueError(
            f"{first.where}{more}: the picture of {first.picture}{name} is not among the images: {advice}{skip}"
        )
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
        raise ValueError(f"--box_category {asked}: the boxes are of {shown or 'no category'}; choose from these")
    of_category = [box for box in boxes if chosen is None or str(box.category_id) in chosen]
    wanted = [box for box in of_category if box.score is None or box.score >= min_score]
    left_out = {
        "of other categories": len(boxes) - len(of_category),
        f"below --min_box_score {min_score:g}": len(of_category) - len(wanted),
    }
    return wanted, {why: number for why, number in left_out.items() if number}


def _parts(name: str) -> list[str]:
    """A file's name and its folders, from the first one that is named; some tools on Windows write \\ between them."""
    return [part for part in PurePath(name.replace("\\", "/")).parts if part not in (".", "..")]


def _ends_with(file: Path, parts: list[str]) -> bool:
    whole = (file if len(file.parts) >= len(parts) else file.absolute()).parts
    return list(whole[-len(parts) :]) == parts
