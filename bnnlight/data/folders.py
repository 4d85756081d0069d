"""Image files in class folders, with errors that name the folder or the file."""

import os
from pathlib import Path

from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from bnnlight.data.transforms import as_grey_or_rgb


def one_line(error: Exception) -> str:
    """Return an exception's message without line breaks."""
    return " ".join(str(error).split())


def load_rgb(path: str | Path) -> Image.Image:
    """Read an image file of any usual format as RGB.

    Args:
        path: of the file.

    Returns:
        A PIL image of mode "RGB".

    Raises:
        OSError: If the file cannot be read in full; the message is one line and names it.
    """
    try:
        with Image.open(path) as image:
            return as_grey_or_rgb(image, num_channels=3)
    except Exception as error:
        # Pillow's decoders let through whatever a damaged file made them stumble over:
        # OSError, SyntaxError, ValueError, struct.error, DecompressionBombError, ... .
        # A plain OSError keeps its message when a loader process passes it on.
        raise OSError(f"cannot read image {path}: {one_line(error)}; replace or remove the file") from error


def class_names(folder: Path) -> list[str]:
    """List the class folders of a split, sorted; hidden folders and files are no classes.

    Raises:
        FileNotFoundError: If there is no such folder, or no class folder in it.
    """
    if not folder.is_dir():
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


class ClassFolders(ImageFolder):
    """Images under FOLDER/CLASS/, labelled by the place of CLASS in the sorted names.

    Hidden files and folders are skipped at every depth: ``._cat.jpg``, which macOS leaves
    behind, is no image.

    Args:
        folder: holds one folder for each class.

    Raises:
        FileNotFoundError: If the folder, or the class folders, or the images of a class are
            missing.
    """

    def __init__(self, folder: Path) -> None:
        def is_image(path: str) -> bool:
            # Only below the folder: the data themselves may lie in a hidden place.
            below = path[len(str(folder)) :]
            return path.lower().endswith(IMG_EXTENSIONS) and f"{os.sep}." not in below

        super().__init__(str(folder), loader=load_rgb, is_valid_file=is_image, allow_empty=True)
        labels = set(self.targets)
        for name, label in self.class_to_idx.items():
            if label not in labels:
                raise FileNotFoundError(
                    f"no images found in the class folder {folder / name}: looked for files ending "
                    f"in {' '.join(IMG_EXTENSIONS)}; add images or remove the folder"
                )

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Return the class names, sorted, and the label of each."""
        names = class_names(Path(directory))
        return names, {name: label for label, name in enumerate(names)}
