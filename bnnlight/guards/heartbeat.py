"""`Heartbeat`: ends a run of several processes soon after one of them has died, instead of letting them wait."""

from __future__ import annotations

import math
import os
import sys
import threading
import warnings

import lightning as L

from bnnlight.console.lost_connection import lost_connection
from bnnlight.guards.lifeline import Lifeline
from bnnlight.guards.meeting_place import call, listen
from bnnlight.guards.stop_signals import EXIT_CODE_STOPPED


class Heartbeat(L.Callback):
    """Watches, in a run of several processes, that all of them are alive, while training and testing.

    When a host loses its power or network, nothing tells the others: they wait for it in a collective call until the
    process group gives up, after 10 (NCCL) or 30 minutes (gloo). Here a thread in each process exchanges a sign of
    life over a connection of its own. A process that is slow or busy goes on sending them; where one is silent for
    ``timeout_s``, or its connection ends without a goodbye, the others print one line and end, whatever their main
    thread waits for: with exit status 75 after silence, and 1 after an error or a death that they were told of.

    Where the connection cannot be made at the start, there is a warning and the run goes on unwatched.

    Args:
        timeout_s: seconds of silence after which a process counts as lost; None: nobody watches.

    Raises:
        ValueError: the timeout is not above zero, or endless.
    """

    def __init__(self, timeout_s: float | None = 45.0) -> None:
        if timeout_s is not None and not 0 < timeout_s < math.inf:
            raise ValueError(f"heartbeat.timeout_s is {timeout_s}: give seconds above 0, or null for no heartbeat")
        self.timeout_s = timeout_s
        self._lifeline: Lifeline | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if not lifeline:
            return
        if lost_connection(exception):
            # who it was is known here alone, and counts as lost by then
            if line := lifeline.gone(wait_s=self.timeout_s / 4):
                exception.lost_rank = line + _how_to_go_on(trainer)
            lifeline.end()
        else:
            # an interrupt is no error: it reaches the others as well, or they hear of it at the next collective call
            text = f"{type(exception).__name__}: {exception}".splitlines()[0]
            lifeline.end(text if isinstance(exception, Exception) else None)

    def _start(self, trainer: L.Trainer) -> None:
        if trainer.world_size == 1 or self.timeout_s is None:
            return
        link, place, problem = None, None, ""
        if trainer.is_global_zero:
            where = trainer.strategy.cluster_environment
            try:
                link, place = listen(where.main_address, where.main_port, trainer.num_nodes, trainer.world_size - 1)
            except OSError as error:
                problem = str(error)
        place, problem = trainer.strategy.broadcast((place, problem))
        if not trainer.is_global_zero and place is not None:
            try:
                link = call(place, min(self.timeout_s, 10))
            except OSError as error:
                problem = f"{place.address} port {place.port}: {error}"
        if link is None:
            warnings.warn(
                f"rank {trainer.global_rank} goes on without a heartbeat ({problem}): if another host dies, it will "
                "wait for it until the process group's timeout",
                stacklevel=2,
            )
            return
        go_on = _how_to_go_on(trainer)

        def lost(line: str, silent: bool) -> None:
            end_process(f"bnnlight fit: error: {line}{go_on}", EXIT_CODE_STOPPED if silent else 1)

        self._lifeline = Lifeline(trainer.global_rank, self.timeout_s, lost, link, place)
        self._lifeline.start()

    def _end(self, trainer: L.Trainer) -> None:
        if trainer.world_size == 1 or self.timeout_s is None:
            return
        # so that none still watches when another one's process ends; the wait itself is watched
        trainer.strategy.barrier()
        lifeline, self._lifeline = self._lifeline, None
        if lifeline:
            lifeline.end()


def _how_to_go_on(trainer: L.Trainer) -> str:
    where = trainer.default_root_dir
    return f"; the run goes on from its last checkpoint when it is started again with --run_dir {where} --resume"


def end_process(line: str, code: int) -> None:
    """Prints a line on stderr and ends the process, even where its main thread hangs."""
    # past Python's own files, whose locks the main thread may hold
    os.write(2, f"{line}\n".encode())
    # what stands in them is worth a try
    timer = threading.Timer(2, os._exit, (code,))
    timer.daemon = True
    timer.start()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
