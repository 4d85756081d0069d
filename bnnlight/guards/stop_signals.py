"""Signals that stop a run: it ends after the step under way, with everything saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch.distributed as dist
from torch import Tensor, tensor

EXIT_CODE_STOPPED = 75
"""Exit code of a run that was told to stop, or lost a host, and can go on: sysexits' EX_TEMPFAIL, "try again"."""

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")


class Stopped(SystemExit):
    """The run was told to stop. It ends the process with 75, or 130 for Ctrl-C, unless somebody catches it.

    Args:
        signum: of the signal, or None where another process of the run was told.
        saved: whether everything that was trained is in a checkpoint.
    """

    def __init__(self, signum: int | None, saved: bool) -> None:
        super().__init__(130 if signum == signal.SIGINT else EXIT_CODE_STOPPED)
        self.reason = signal.Signals(signum).name if signum else "another process"
        self.saved = saved


class StopSignals:
    """Takes SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C while it is entered, as a context.

    A signal ends the process right away by :class:`Stopped`, except between :meth:`hold` and :meth:`release`: there it
    is only noted, for the training to stop where it can be saved. A second signal of the same kind ends it even there.
    Several processes have to stop after one and the same step: see :class:`Agreement`.

    Attributes:
        received: number of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._held = self._entered = False
        self._pid = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python lets no other thread have signals
        self._entered = threading.current_thread() is threading.main_thread()
        self.take()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._entered = self._held = False
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def take(self) -> None:
        """Sets the handlers, anew where they were taken over; does nothing outside of the context.

        Lightning puts its own in front of them when it starts, which talk to the other processes from within the
        handler, so that a signal to one of them can block all.
        """
        for name in _NAMES if self._entered else ():
            number = getattr(signal, name, None)  # not all are there on Windows
            if number is not None:
                self._before.setdefault(number, signal.getsignal(number))
                signal.signal(number, self._handle)

    def hold(self) -> None:
        """From here on signals are only noted."""
        self.take()
        self._held = self._entered

    def release(self) -> None:
        """From here on a signal ends the process."""
        self._held = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked loader worker: the training still wants its batch
        again = self.received == signum
        self.received = self.received or signum
        if not self._held or again:
            raise Stopped(signum, saved=False)
        if signum == signal.SIGINT:
            # In one piece: a second signal may come at once, and the next line would begin behind this one. Past
            # Python's own file, in the midst of whose writing this one may have come.
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping after this step; Ctrl-C again to stop at once\n")


class Agreement:
    """Lets all processes of a run learn, in the same step, what any of them wants.

    Flags are added up over the processes while the step computes: on the CPU, as reading a sum from a GPU would make
    the CPU wait for the whole step.

    Args:
        num_processes: of the run; a single one agrees with itself.

    Attributes:
        group: of all processes, for what lies on the CPU; None for a single one.
    """

    def __init__(self, num_processes: int) -> None:
        self.group = dist.new_group(backend="gloo") if num_processes > 1 else None
        self._flags: Tensor | None = None
        self._work: Any = None

    def ask(self, *flags: bool) -> None:
        """Hands in this process's flags, as many as every other process does."""
        self._flags = tensor(flags, dtype=tensor(0).dtype)
        if self.group is not None:
            self._work = dist.all_reduce(self._flags, group=self.group, async_op=True)

    def answer(self) -> list[bool]:
        """For each flag whether any process had set it when asked; none where nothing was asked."""
        if self._flags is None:
            return []
        if self._work is not None:
            self._work.wait()
        flags, self._flags, self._work = self._flags, None, None
        return [bool(flag) for flag in flags.tolist()]
