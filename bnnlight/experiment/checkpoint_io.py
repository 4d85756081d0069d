"""Writes checkpoints whole or not at all, on local and mounted file systems, and finds damaged ones."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

PART = ".part"
"""Ending of a file that is being written."""
RUN = "run"
"""Entry of a checkpoint: which run it is of, whatever it is called and wherever it lies."""


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's reader and writer of checkpoints, writing beside the file and moving it into place.

    The file that was there before stays until the new one is whole and on the disk; a process or machine that dies
    while saving leaves a ``.part`` behind and nothing else. Where there is no room, the part is taken away again.

    What ``torch.save`` writes is a ZIP archive with a CRC-32 for each of its entries: :func:`damage` compares them.

    Args:
        run: that the checkpoints are of; they hold it as their entry ``run``.
    """

    def __init__(self, run: str | None = None) -> None:
        super().__init__()
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if self.run is not None:
            checkpoint[RUN] = self.run
        if "://" in str(path):  # an object store, which shows a file when it is whole
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + PART)
        try:
            with part.open("wb") as file:
                _save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(error.errno, f"cannot save a checkpoint: {error.strerror}", str(path)) from error
        os.replace(part, path)
        _sync_folder(path.parent)


def damage(path: str | Path) -> str | None:
    """What is wrong with a checkpoint's file: each entry is compared with its CRC-32; None where nothing is.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        return f"cut off or overwritten ({' '.join(str(error).split())})"
    return f"{wrong} differs from its checksum" if wrong else None


class _WatchedFile:
    """A file that remembers why it could not be written, as ``torch.save`` loses the reason on its way."""

    def __init__(self, file: Any) -> None:
        self.file, self.error = file, None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(checkpoint: dict[str, Any], file: Any) -> None:
    watched = _WatchedFile(file)
    try:
        torch.save(checkpoint, watched)
    except Exception:
        if watched.error is not None:
            raise watched.error from None
        raise


def _sync_folder(folder: Path) -> None:
    """Makes a move last through a loss of power, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
