"""`LogBook`: what a run has logged, so that it logs nothing twice when it goes on, and leaves nothing out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bnnlight.tracking.keys import current

At = tuple[int, int]
"""A key's last step, and how many times it was logged at that step."""
BEFORE: At = (-1, 0)


class LogBook:
    """Tells which figures of a run that goes on from a checkpoint stand in its log already.

    A run that was stopped behind its last checkpoint trains some steps again and comes to their figures once more. A
    key may rightly come twice at one step, as with two validations between two optimizer steps. So both what is in
    the log and what the run has come to, which a checkpoint holds, are counted for each key's last step.
    """

    def __init__(self) -> None:
        self._written: dict[str, At] = {}
        self._reached: dict[str, At] = {}

    def read(self, rows: Iterable[Mapping[str, Any]], step_key: str = "step") -> None:
        """Takes in what earlier starts have logged.

        Args:
            rows: in order of logging, those of one run.
            step_key: of a row's step.
        """
        for row in rows:
            for key in map(current, row):
                self._written[key] = _after(self._written.get(key, BEFORE), int(row[step_key]))

    def new(self, metrics: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The metrics that are not in the log yet, with the epoch if there are any; they count as logged.

        Args:
            metrics: key → value.
            step: of the values.

        Returns:
            The new ones, under the keys of :func:`bnnlight.tracking.keys.current`.
        """
        metrics = {current(key): value for key, value in metrics.items()}
        new = set()
        for key in metrics:
            self._reached[key] = reached = _after(self._reached.get(key, BEFORE), step)
            # of figures that come out of order the step alone is compared
            if (step, reached[1] if step == reached[0] else 1) > self._written.get(key, BEFORE):
                new.add(key)
        # Lightning hands the epoch over with every row of a step
        return {key: value for key, value in metrics.items() if key in new or (key == "epoch" and new)}

    def state(self) -> dict[str, At]:
        """What the run has come to: key → its last step, and how often it came at that step."""
        return dict(self._reached)

    def go_on(self, state: Mapping[str, At]) -> None:
        """Puts back what the run had come to, of :meth:`state`; all that came since is in the log."""
        for key, reached in self._reached.items():
            self._written[key] = max(reached, self._written.get(key, BEFORE))
        self._reached = {current(key): (step, times) for key, (step, times) in state.items()}


def _after(last: At, step: int) -> At:
    """The same once the key was logged at a step."""
    return (step, 1) if step > last[0] else (last[0], last[1] + (step == last[0]))
