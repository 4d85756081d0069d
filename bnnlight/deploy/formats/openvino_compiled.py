"""Keeps OpenVINO from leaving the thread's signals a stack that is gone.

OpenVINO 2026.4 gives a thread that runs a network an alternate stack for signals, and puts back the one before when
the network goes. With two networks that go in the order in which they came, the second puts back the stack of the
first, whose memory is freed by then: the next signal with a handler (a child process that ends, in a process with
torch's data loaders) ends the process with a segmentation fault.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux, https://man7.org/linux/man-pages/man2/sigaltstack.2.html."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Gives this thread back, at the end, the alternate signal stack that it had; does nothing but on Linux."""
    if sys.platform != "linux":
        yield
        return
    before = _Stack()
    _system().sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        _system().sigaltstack(ctypes.byref(before), None)


@functools.cache
def _system() -> ctypes.CDLL:
    return ctypes.CDLL(None)
