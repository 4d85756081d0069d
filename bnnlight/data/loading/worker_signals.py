"""Signals to loader processes, which keep working when the run is told to stop, and from them, when one is lost.

The adapter for the one private part of torch's loaders that is used. Where a version of torch no longer has it, a
lost process is reported without the reason.
"""

from __future__ import annotations

import signal

try:
    from torch.utils.data._utils.signal_handling import _set_SIGCHLD_handler
except ImportError:
    _set_SIGCHLD_handler = None

GRACE_S = 60
"""How long a loader process works on after it was told to end, in case nobody else ends it."""


def outlive_stop_signals(worker_id: int) -> None:
    """To be called as a loader process starts: schedulers and Ctrl-C send their signals to it as well.

    The run ends its loader processes itself, once it has saved.

    Args:
        worker_id: not used; loaders pass it.
    """
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))


def hear_of_lost_workers() -> None:
    """Lets torch tell which signal ended a loader process; to be called before a Trainer starts.

    Torch sets its handler once in a process, when the first loader with workers starts. Lightning, at the end of a fit,
    sets all handlers back to those that it found: without this, a worker lost in the test that follows would be
    reported without the reason, and so would shared memory that ran out.
    """
    if _set_SIGCHLD_handler is not None:
        _set_SIGCHLD_handler()
