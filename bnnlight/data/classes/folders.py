"""Image files in class folders, with errors that name the folder or the file."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image
from torch.utils.data import get_worker_info
from torchvision.datasets import ImageFolder

from bnnlight.imaging.image_files import SUFFIXES, counted, is_other_picture
from bnnlight.imaging.reading import load_rgb


def class_names(folder: Path) -> list[str]:
    """List the class folders of a split, sorted; hidden folders and files are not classes.

    Raises:
        FileNotFoundError: If there is no such folder, or no class folder in it.
    """
    if not folder.is_dir():
        root = folder.parent
        inside = sorted(_with_pictures(root)) if root.is_dir() and root.resolve().name != folder.name else []
        if inside:
            names = ", ".join(inside[:3]) + (", …" if len(inside) > 3 else "")
            raise FileNotFoundError(
                f"no images found: looked for {folder} with one folder of images for each class, and {root} has such "
                f"folders itself ({names}); move them into {folder}, as {folder / inside[0]}"
            )
        raise FileNotFoundError(
            f"no images found: looked for {folder} with one folder of images for each class; "
            "pass --data.root with the folder above it"
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise FileNotFoundError(
            f"no class folders found: looked in {folder} for one folder of images for each class; "
            f"move the images to {folder / 'CLASS'}"
        )
    return names


def _with_pictures(folder: Path) -> Iterator[str]:
    """Names of the folders in a folder that have pictures in them, as classes have; a split has them one below."""
    for inner in folder.iterdir():
        files = inner.iterdir() if inner.is_dir() and not inner.name.startswith(".") else ()
        if any(file.suffix.lower() in SUFFIXES and not file.name.startswith(".") for file in files):
            yield inner.name


class KeptPictures:
    """Reads pictures as :func:`bnnlight.imaging.reading.load_rgb` does, and keeps them: for small ones, a few px wide.

    In loader workers nothing is kept: each would hold nearly all pictures after some epochs.
    """

    def __init__(self) -> None:
        self._pictures: dict[str, Image.Image] = {}

    def __call__(self, path: str) -> Image.Image:
        picture = self._pictures.get(path)
        if picture is None:
            picture = load_rgb(path)
            if get_worker_info() is not None:
                return picture
            self._pictures[path] = picture
        # an augmentation may paint into it
        return picture.copy()

    def __getstate__(self) -> dict[str, dict]:
        # a worker that is started anew, not forked, is handed the reader
        return {"_pictures": {}}


class ClassFolders(ImageFolder):
    """Images under FOLDER/CLASS/, labelled by the place of CLASS in the sorted names, or in those that are given.

    Hidden files and folders are skipped at every depth: ``._cat.jpg``, which macOS leaves
    behind, is not an image. A warning counts pictures in formats that are not read.

    Args:
        folder: holds one folder for each class.
        load: from a path to a picture.
        classes: names in the order of the labels; the folder may lack some of them, but has no others. Its
            own if None, each with images.

    Raises:
        FileNotFoundError: If the folder, or the class folders, or the images of a class or of all are
            missing.
    """

    def __init__(
        self, folder: Path, load: Callable[[str], Image.Image] = load_rgb, classes: Sequence[str] | None = None
    ) -> None:
        self._names = classes

        others: Counter[str] = Counter()

        def is_image(path: str) -> bool:
            # Only below the folder: the data themselves may lie in a hidden place.
            if f"{os.sep}." in path[len(str(folder)) :]:
                return False
            is_so = path.lower().endswith(SUFFIXES)
            if not is_so and is_other_picture(path):
                others[os.path.splitext(path)[1].lower()] += 1
            return is_so

        super().__init__(str(folder), loader=load, is_valid_file=is_image, allow_empty=True)
        if others:
            told = f"left out of {folder}, as pictures in other formats: {counted(others)}"
            rank_zero_warn(f"{told}; convert them to PNG or JPEG", stacklevel=2)
        empty = self.without_images
        if empty and (classes is None or len(empty) == len(classes)):
            where = f"the class folder {folder / empty[0]}" if classes is None else f"the class folders of {folder}"
            raise FileNotFoundError(
                f"no images found in {where}: looked for files ending "
                f"in {' '.join(SUFFIXES)}; add images or remove the folder"
            )

    @property
    def without_images(self) -> list[str]:
        """Names of the classes of which there is no image."""
        labels = set(self.targets)
        return [name for name, label in self.class_to_idx.items() if label not in labels]

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Return the class names and the label of each."""
        names = class_names(Path(directory)) if self._names is None else list(self._names)
        return names, {name: label for label, name in enumerate(names)}
