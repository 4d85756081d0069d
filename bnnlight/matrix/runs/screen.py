"""Shows how far a matrix of runs is, on a terminal or in a log."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Screen:
    """A bar over all runs that are missing, while it is entered; plain lines where there is no terminal.

    Args:
        console: of the terminal or log.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(soft_wrap=True)
        columns = (TextColumn("{task.fields[count]}"), BarColumn(), TextColumn("{task.fields[rest]}", markup=False))
        self._bar = Progress(
            *columns, console=self._console, disable=not self._console.is_terminal, transient=True, refresh_per_second=2
        )
        self._task = self._bar.add_task("", total=1.0, count="", rest="")

    def __enter__(self) -> Screen:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def line(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, done: float, total: float, count: str, left_s: float | None, running: Sequence[str]) -> None:
        """Moves the bar.

        Args:
            done: of the work.
            total: work; same unit.
            count: of the runs, such as ``3 of 12``.
            left_s: seconds until the end; None where they are not known yet.
            running: what goes on, one entry a run.
        """
        rest = "; ".join([*([f"{duration(left_s)} left"] if left_s is not None else []), *running])
        self._bar.update(self._task, completed=done, total=max(total, 1e-9), count=count, rest=rest)


def duration(seconds: float) -> str:
    """Seconds as ``40 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
