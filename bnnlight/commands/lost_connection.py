"""What torch says when another process of the run is gone, in one line."""

from __future__ import annotations

import re


def lost_connection(error: BaseException) -> str | None:
    """A line for an error by which torch says that another process of the run is gone; None for any other error."""
    text = str(error)
    named = type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError")
    broken = re.search(r"Connection (?:closed|reset) by peer(?: \[[^\]]*\])?|Broken pipe|Timed out|timed out", text)
    nccl = re.search(r"ncclRemoteError|ncclSystemError|remote process exited", text)
    if not (named or (isinstance(error, RuntimeError) and "gloo" in text)) or not (broken or nccl):
        return None
    found = (broken or nccl)[0]
    return (
        f"the connection to another process of the run broke ({found}): what ended that process stands in its own "
        "output; the same command goes on from the last checkpoint with --resume and the run's --run_dir"
    )
