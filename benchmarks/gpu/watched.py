"""A process that ends in time, with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

GRACE_S = 5.0
"""Between the request to end and the end."""


def run_watched(
    command: Sequence[str], limit_s: float, stream: IO[bytes], env: dict[str, str], cwd: Path
) -> str | None:
    """Runs a command to its end, or to the limit.

    Args:
        command: its words.
        limit_s: seconds after which it is asked to end; it and its children are killed 5 s later.
        stream: where it prints to.
        env: its variables.
        cwd: where it runs.

    Returns:
        Why it failed, or None.
    """
    try:
        # a session of its own, so that its children can be ended with it
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=env, cwd=cwd, start_new_session=True
        )
    except OSError as error:
        return f"cannot be started: {error}"
    try:
        code = process.wait(limit_s)
        return f"exit code {code}" if code else None
    except subprocess.TimeoutExpired:
        _send(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        return f"not done after {limit_s:.0f} s"
    finally:
        _send(process, signal.SIGKILL)
        process.wait()


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
