"""The folder that `bnnlight predict` writes: an answer is there whole or not at all, and the user's files stay."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

ANSWERS, ERRORS = "predictions.json", "errors.json"


class AnswerFolder:
    """Pictures and JSON of one answer.

    Args:
        path: folder that may be there already, with files of the user's.
        overwrite: an earlier answer in it is replaced.

    Attributes:
        earlier: the files of the earlier answer, which are removed once the new one is there.

    Raises:
        ValueError: there is an earlier answer that is not to be replaced, or another file under its name.
        NotADirectoryError: the path is a file's.
    """

    def __init__(self, path: Path, overwrite: bool) -> None:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path} is a file: choose another --output")
        there = [path / name for name in (ANSWERS, ERRORS) if (path / name).exists()]
        if there and not overwrite:
            raise ValueError(f"{there[0]} already exists: choose another --output, or pass --overwrite")
        self.path = path
        self.earlier: set[Path] = {file for name in there for file in _files_of(name)}
        self._used_names: set[str] = set()

    def keep(self, files: Collection[Path]) -> None:
        """Takes files for the user's, even if an earlier answer names them."""
        # unlike Path.resolve, at peace with a link that leads to itself
        resolved = set(map(os.path.realpath, files))
        self.earlier = {file for file in self.earlier if os.path.realpath(file) not in resolved}

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """A folder to write the new answer to, whose files are moved to their place at the end.

        After an error the folder is as it was; if it is new, it is removed.
        """
        new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            # inside, since what is around may be another disk or not writable
            with tempfile.TemporaryDirectory(dir=self.path, prefix=".predict-") as room:
                yield Path(room)
                self._move(Path(room))
        finally:
            if new:
                with contextlib.suppress(OSError):  # it is not empty, as it should be
                    self.path.rmdir()

    def _move(self, room: Path) -> None:
        # what names the pictures is the first to go and the last to come
        jsons = [name for name in (ANSWERS, ERRORS) if (room / name).exists()]
        for file in sorted(self.earlier, key=lambda file: file.name not in (ANSWERS, ERRORS)):
            file.unlink(missing_ok=True)
        for file in room.iterdir():
            if file.name not in jsons:
                os.replace(file, self.path / file.name)
        for name in reversed(jsons):
            os.replace(room / name, self.path / name)

    def name_for(self, file: Path) -> str:
        """A name for the picture of this image that no other image's picture has, and no file of the user's."""
        if not self._used_names and self.path.is_dir():
            self._used_names = {other.name.lower() for other in self.path.iterdir() if other not in self.earlier}
        name, count = f"{file.stem}.png", 1
        while name.lower() in self._used_names:
            count += 1
            name = f"{file.stem}-{count}.png"
        self._used_names.add(name.lower())
        return name


def write_answer(room: Path, record: dict | list[dict], errors: list[dict]) -> None:
    """Writes both, the list of errors where there are any. Of a list each entry has a line, of an object each value."""
    for name, entries in ((ANSWERS, record), (ERRORS, errors)):
        if entries or name == ANSWERS:
            # half a file is seen by nobody: it is moved to its place once it is whole
            lines = ",\n".join(map(json.dumps, entries))
            text = json.dumps(entries, indent=2) if isinstance(entries, dict) else f"[\n{lines}\n]"
            (room / name).write_text(text + "\n")


def _files_of(listing: Path) -> Iterator[Path]:
    """A JSON file of an earlier answer and the pictures that it names, as far as they lie beside it."""
    refused = f"{listing} was not written by bnnlight predict: choose another --output"
    try:
        entries = json.loads(listing.read_bytes())
    except (ValueError, OSError) as error:
        raise ValueError(refused) from error
    if isinstance(entries, dict) and "version" in entries:
        entries = entries.get("images")
    # the second is COCO's form, which names no pictures; lists of the first were written before there was a version
    keys = ({"image", "picture"}, {"image_id", "keypoints"}) if listing.name == ANSWERS else ({"image", "error"},)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and any(some <= entry.keys() for some in keys) for entry in entries
    ):
        raise ValueError(refused)
    yield listing
    for entry in entries:
        name = entry.get("picture") if "image" in entry else None
        if isinstance(name, str) and name == Path(name).name and name.endswith(".png"):
            picture = listing.parent / name
            # where an answer lies among its own images
            if os.path.realpath(picture) != os.path.realpath(str(entry["image"])):
                yield picture
