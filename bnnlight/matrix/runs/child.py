"""One run under way: `bnnlight fit` in a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from bnnlight.matrix.runs.run import LOG_NAME, Run

COMMAND = (sys.executable, "-m", "bnnlight", "fit")
"""What a run's options are handed to."""

DIVERGED = 3
"""What it ends with where its numbers did not stay finite."""

_ERROR = "bnnlight fit: "
_TAIL = 64 * 1024  # bytes, of a file's end that is looked at
_PR_SET_PDEATHSIG = 1


class Child:
    """Starts a run, or goes on with one that was broken off; what it prints is in ``log.txt`` of its folder.

    It is in a session of its own, so that a terminal's Ctrl-C reaches the matrix alone. On Linux it is told to stop
    when the matrix dies.

    Args:
        run: that is missing.
        env: the process's environment.

    Attributes:
        run: as given.
        seconds: since the start.
    """

    def __init__(self, run: Run, env: Mapping[str, str]) -> None:
        self.run = run
        run.folder.mkdir(parents=True, exist_ok=True)
        command = [*COMMAND, *run.args(), f"--run_dir={run.folder}", "--resume"]
        self._log = run.folder / LOG_NAME
        with self._log.open("ab") as log:
            self._begin = log.tell()
            self._process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_end_with(os.getpid()),
            )  # fmt: skip
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def exit_code(self) -> int | None:
        """None as long as it goes on; below zero for a signal that ended it."""
        return self._process.poll()

    @property
    def epoch(self) -> int:
        """Which one it is in, from 0, as far as its figures tell."""
        for line in reversed(_tail(self.run.folder / "metrics.jsonl")):
            try:
                return int(json.loads(line)["epoch"])
            except (ValueError, KeyError, TypeError):
                continue
        return 0

    def stop(self) -> None:
        """Tells it to save and end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it with all processes that it has started."""
        if self.exit_code is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def last_words(self) -> str:
        """The error in what it printed since this start, or the last line of it."""
        lines = [line.strip() for line in _tail(self._log, self._begin) if line.strip()]
        errors = [line.removeprefix(_ERROR).removeprefix("error: ") for line in lines if line.startswith(_ERROR)]
        return errors[-1] if errors else lines[-1] if lines else f"ended with {self.exit_code} and printed nothing"


def _tail(path: os.PathLike, begin: int = 0) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(begin, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []


def _end_with(parent: int):
    """What the new process does first; None where the system offers nothing of the kind."""
    if sys.platform != "linux":
        return None
    # loaded here: between fork and exec as little as possible is to happen
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in the meantime
            os._exit(1)

    return ask
