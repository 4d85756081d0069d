"""Locks a run's directory, so that no other run writes into it."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # there is none on Windows, where a second run is not kept out
    fcntl = None

FILE_NAME = ".lock"

_PATIENCE_S = 10.0
"""How long a run waits for the one before it in its directory, which may still be ending."""


class RunLock:
    """Makes a run's directory and keeps other runs out of it, on all machines that share its file system.

    The lock is the operating system's, so that it ends with the process, however that ends.

    Args:
        run_dir: the directory.
        new: it must not be there yet.

    Raises:
        FileExistsError: it is new and somebody made it in the meantime.
        NotADirectoryError: it is a file.
        OSError: it cannot be written to, or another run is in it.
    """

    def __init__(self, run_dir: Path, new: bool = False) -> None:
        self._new_folders = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
        self.path = run_dir / FILE_NAME
        try:
            run_dir.mkdir(parents=True, exist_ok=not new)
            self._file = self.path.open("a+")
        except OSError as error:
            if new and isinstance(error, FileExistsError):
                raise
            if run_dir.exists() and not run_dir.is_dir():
                raise NotADirectoryError(f"{run_dir} is a file: choose another --run_dir") from error
            reason = (error.strerror or str(error)).lower()
            text = f"cannot write to the run's directory {run_dir}: {reason}; choose another --run_dir"
            raise OSError(text) from error
        owner = self._wait()
        if owner is not None:
            self._file.close()
            text = f"{run_dir} is in use by another run ({owner}): wait for its end, or choose another --run_dir"
            raise OSError(text)
        self._file.truncate(0)
        json.dump({"host": socket.gethostname(), "process": os.getpid()}, self._file)
        self._file.flush()

    def release(self) -> None:
        """Lets others in; a directory that was made for the run, and in which nothing was written, is taken away."""
        run_dir = self.path.parent
        if self._new_folders and {entry.name for entry in run_dir.iterdir()} == {FILE_NAME}:
            self.path.unlink()
            for folder in self._new_folders:
                if any(folder.iterdir()):
                    break
                folder.rmdir()
        elif not self._file.closed:
            self._file.truncate(0)  # nobody is in it: a run that has ended leaves the same file each time
        self._file.close()

    def _wait(self) -> str | None:
        """Waits a while for the lock; if another keeps it, says who."""
        end = time.monotonic() + _PATIENCE_S
        while fcntl is not None:
            try:
                # Unlike flock, lockf is not handed on to forked loader workers, which may outlive a killed run for
                # some seconds, and works on NFS.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return None
            except (BlockingIOError, PermissionError):
                pass
            except OSError:  # a file system without locks
                return None
            if time.monotonic() > end:
                return self._owner()
            time.sleep(0.2)
        return None

    def _owner(self) -> str:
        self._file.seek(0)
        try:
            owner = json.load(self._file)
            return f"process {owner['process']} on {owner['host']}"
        except (ValueError, KeyError, TypeError):
            return "which one is not known"
