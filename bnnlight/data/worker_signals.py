"""Loader processes that go on when the run is told to stop, as the training still wants their batches."""

from __future__ import annotations

import signal

GRACE_S = 60
"""How long a loader process works on after it was told to end, in case nobody else ends it."""


def outlive_stop_signals(worker_id: int) -> None:
    """To be called as a loader process starts: schedulers, and Ctrl-C, send their signals to it as well.

    The run ends its loader processes itself, once it has saved.

    Args:
        worker_id: not used; loaders hand it over.
    """
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))
