"""Imports of torch and Lightning, which a verb puts off until its command line has been read."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_imports() -> Iterator[None]:
    """Around imports of large libraries: Python does not look for garbage meanwhile.

    Modules stay. To look through them again and again took a fifth of the time to import them.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
