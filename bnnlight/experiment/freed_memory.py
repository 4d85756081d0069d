"""Lets glibc keep freed memory, which saves page faults where training runs on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers of glibc's options, from its ``malloc.h``."""
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Lets glibc keep the memory of freed tensors for the next ones, in this process and those it forks.

    By itself glibc hands every buffer of more than 32 MiB back to the system as it is freed, and gets it again in the
    next layer, page by page and filled with zeros. For a real ResNet-18 on batches of 128 pictures of 32×32 px that is
    530,000 page faults a step and 15 % of the processor time; without them, some thousands. The process stays as large
    as it once was, and what is kept may lie in pieces: there the peak rose from 1.65 to 1.83 GiB.

    Nothing is done where the C library is another one, where the user has set glibc's variables (``MALLOC_…``,
    ``GLIBC_TUNABLES``), or where another allocator is preloaded (``LD_PRELOAD``).

    Returns:
        whether it was done.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    replaced = "malloc" in os.environ.get("LD_PRELOAD", "")
    if chosen or tuned or replaced or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    # musl has neither, or a mallopt that does nothing
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, _LARGEST))
