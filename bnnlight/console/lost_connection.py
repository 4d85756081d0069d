"""Explains torch's errors about another process of the run that is gone, in one line."""

from __future__ import annotations

import re

_ERRORS = ("DistBackendError", "DistNetworkError", "DistStoreError")
_BROKEN = re.compile(
    r"Connection (?:closed|reset) by peer|Broken pipe|[Tt]imed out|[Tt]imeout"
    r"|ncclRemoteError|ncclSystemError|remote process exited"
)


def lost_connection(error: BaseException) -> str | None:
    """A line for an error by which gloo, NCCL or torch's store say that another process is gone; None for others.

    Where the heartbeat knows which rank it was, it says so in the error's attribute ``lost_rank``.
    """
    # by name, since no error should have to wait for torch
    of_torch = type(error).__name__ in _ERRORS or (isinstance(error, RuntimeError) and "gloo" in str(error))
    broken = _BROKEN.search(str(error)) if of_torch else None
    if not broken:
        return None
    return getattr(error, "lost_rank", None) or (
        f"the connection to another process of the run broke ({broken[0]}): that process's own "
        "output says what ended it; the run goes on from its last checkpoint when it is started again with its "
        "--run_dir and --resume"
    )
