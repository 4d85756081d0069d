"""Trains the runs that are missing, some at a time, until none is left or somebody stops it."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from bnnlight.matrix.plan.plan import Plan
from bnnlight.matrix.plan.reading import Options
from bnnlight.matrix.plan.units import Unit
from bnnlight.matrix.runs.child import DIVERGED, Child
from bnnlight.matrix.runs.ledger import Ledger
from bnnlight.matrix.runs.machine import Machine
from bnnlight.matrix.runs.run import LOG_NAME, Run, final_runs, is_done
from bnnlight.matrix.runs.screen import Screen, duration
from bnnlight.matrix.runs.standing import Standing, figure, look

_LOOK_S = 0.2
_GRACE_S = 120.0
"""How long a run may take to save and end, once it was told to."""


class Work:
    """All missing runs of some methods.

    Args:
        plan: of the matrix.
        folder: of all runs.
        extra: options handed on to every run.
        names: of the methods whose runs are made; the searches that they take their value from come with them.
        machine: what the runs share.
        ledger: of the runs that are done; each is added as it ends.
        details: method → what else is kept with each of its runs.

    Attributes:
        num_done: runs made.
        num_failed: runs that ended otherwise.
        stopped: the signal that ended the work before its time, or None.
    """

    def __init__(
        self, plan: Plan, folder: Path, extra: Options, names: Sequence[str], machine: Machine,
        ledger: Ledger, details: Mapping[str, Mapping[str, Any]],
    ) -> None:  # fmt: skip
        self._plan, self._folder, self._extra = plan, folder, extra
        self._machine, self._ledger, self._details = machine, ledger, details
        self._names = set(names) | {plan.methods[name].rate_of for name in names}
        self._requested, self._unit = set(names), Unit(plan.metric)
        self._running: dict[int, Child] = {}
        self._failed: set[Path] = set()
        self._standings: dict[str, Standing] = {}
        self._num_epochs: dict[Path, int] = {}
        self.num_done = self.num_failed = 0
        self.stopped: int | None = None

    def run(self) -> None:
        """Makes them; returns early where a signal says so, with everything saved that can be."""
        before = {number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._look()
            with Screen() as screen:
                while (due := self._due()) or self._running:
                    if self.stopped:
                        screen.line("stopping: the runs are saved; the same signal again ends them at once")
                        self._stop()
                        return
                    self._start(due)
                    time.sleep(_LOOK_S)
                    self._reap(screen)
                    self._show(screen)
        finally:
            for child in self._running.values():
                child.kill()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            for child in self._running.values():
                child.kill()
        self.stopped = number

    def _look(self) -> None:
        self._standings = look(self._plan, self._folder, self._extra, self._ledger)

    def _missing(self) -> list[Run]:
        """All that can be begun, without those that failed: method by method, so that rows are whole early."""
        runs = []
        for name in self._names:
            # of a method that only lends its value, the row is not asked for
            runs += [run for run in self._standings[name].missing if run.is_search or name in self._requested]
        left = [run for run in runs if run.folder not in self._failed]
        order = list(self._plan.methods)
        return sorted(left, key=lambda run: (order.index(run.method), not run.is_search))

    def _due(self) -> list[Run]:
        under_way = {child.run.folder for child in self._running.values()}
        return [run for run in self._missing() if run.folder not in under_way]

    def _start(self, due: list[Run]) -> None:
        for slot in range(self._machine.jobs):
            if slot in self._running or not due:
                continue
            run = due.pop(0)
            # another matrix may have made it, or a part of it, in the meantime
            record = run.record() or {"method": run.method, "value": run.value, "seed": run.seed, "seconds": 0.0}
            if is_done(record):
                self._look()
                continue
            run.folder.mkdir(parents=True, exist_ok=True)
            fresh = {"asked": run.asked(), "machine": self._machine.record(), **self._details.get(run.method, {})}
            run.keep(record | fresh)
            self._running[slot] = Child(run, self._machine.env(slot))

    def _reap(self, screen: Screen) -> None:
        for slot, child in list(self._running.items()):
            if child.exit_code is None:
                continue
            del self._running[slot]
            record = self._count_time(child)
            if child.exit_code == DIVERGED and child.run.is_search:
                # an answer, the worst there is: to try it again would give the same
                record["diverged"] = child.last_words()
                child.run.keep(record)
            if is_done(record) and (child.exit_code == 0 or "diverged" in record):
                self.num_done += 1
                self._ledger.add([(child.run, record)])
                self._look()
                screen.line(f"[{self._count()}] {self._result(child.run, record)}")
            else:
                self.num_failed += 1
                self._failed.add(child.run.folder)
                log = child.run.folder / LOG_NAME
                screen.line(f"[failed] {child.run.title}: {child.last_words()}; log: {log}")

    def _result(self, run: Run, record: dict[str, Any]) -> str:
        if "diverged" in record:
            return f"{run.title}: diverged, {duration(record['seconds'])}"
        key = run.key(self._plan.metric)
        text = self._unit.show(self._unit.scale * figure(run, record, self._plan.metric))
        return f"{run.title}: {key} {text}, {duration(record['seconds'])}"

    def _count_time(self, child: Child) -> dict[str, Any]:
        record = child.run.record() or {}
        record["seconds"] = record.get("seconds", 0.0) + child.seconds
        child.run.keep(record)
        return record

    def _stop(self) -> None:
        for child in self._running.values():
            child.stop()
        end = time.monotonic() + _GRACE_S
        while any(child.exit_code is None for child in self._running.values()) and time.monotonic() < end:
            time.sleep(_LOOK_S)
        for slot, child in list(self._running.items()):
            if child.exit_code is not None:
                self._count_time(child)
                del self._running[slot]

    def _count(self) -> str:
        later = sum(len(self._plan.methods[name].seeds) for name in self._waiting())
        # a run may have ended, and stand as done, that is not counted yet
        left = {run.folder for run in self._missing()} | {child.run.folder for child in self._running.values()}
        return f"{self.num_done} of {self.num_done + self.num_failed + len(left) + later}"

    def _waiting(self) -> list[str]:
        """Methods whose value will be chosen, and is not yet."""
        failed = {run.method for s in self._standings.values() for run in s.missing if run.folder in self._failed}
        choices = {name: self._standings[name].choice for name in self._requested}
        names = [name for name, c in choices.items() if c and c.value is None and c.num_done < c.num_runs]
        return [name for name in names if self._plan.methods[name].rate_of not in failed]

    def _show(self, screen: Screen) -> None:
        later = []
        for name in self._waiting():
            method = self._plan.methods[name]
            later += final_runs(self._plan, method, method.search.values[0], self._folder, self._extra)
        left = sum(self._epochs(run) for run in (*self._missing(), *later))
        done = sum(min(child.epoch, self._epochs(child.run)) for child in self._running.values())
        took, trained = 0.0, 0
        for standing in self._standings.values():
            for run, record in (*standing.search, *standing.final):
                if is_done(record):
                    took, trained = took + record["seconds"], trained + self._epochs(run)
        left_s = (left - done) * took / trained / self._machine.jobs if trained else None
        running = [f"{c.run.title}: epoch {c.epoch + 1} of {self._epochs(c.run)}" for c in self._running.values()]
        screen.show(trained + done, trained + left, self._count(), left_s, running)

    def _epochs(self, run: Run) -> int:
        if run.folder not in self._num_epochs:
            max_epochs = run.asked().get("trainer.max_epochs")
            self._num_epochs[run.folder] = max_epochs if isinstance(max_epochs, int) and max_epochs > 0 else 1
        return self._num_epochs[run.folder]
