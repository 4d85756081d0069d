"""`Interval` and `IntervalCallback`: at which optimizer steps a callback looks at the network, and logs figures."""

from __future__ import annotations

from typing import Any

import lightning as L


class Interval:
    """Says when a look is due: at every ``steps``-th optimizer step, once a step.

    With gradient accumulation several batches end at one step; only the first of them is told that a look is
    due. ``last_step`` belongs in the state of the callback that owns the interval, so that a resumed run
    does not look again at the step it was saved at.

    Args:
        steps: number of optimizer steps between two looks.

    Attributes:
        last_step: step of the last look, -1 before the first.

    Raises:
        ValueError: the number of steps is below 1.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"interval is {steps}: give a number of steps of at least 1")
        self.steps = steps
        self.last_step = -1
        self._resumed = False

    def start(self, step: int) -> bool:
        """To be called as training starts: whether the run is new, so that its first look is due right away."""
        new, self._resumed = not self._resumed, False
        if new:
            self.last_step = step
        return new

    def resume(self, last_step: int) -> None:
        """Makes the next start continue from the last look of an earlier run."""
        self.last_step, self._resumed = last_step, True

    def is_next(self, step: int) -> bool:
        """Whether the batch that begins now, after ``step`` optimizer steps, belongs to a step that is looked at."""
        return (step + 1) % self.steps == 0

    def due(self, step: int) -> bool:
        """Whether to look now, after ``step`` optimizer steps; the step then counts as looked at."""
        return step % self.steps == 0 and self.overdue(step)

    def overdue(self, step: int) -> bool:
        """Whether to look now that training ends, the last look being older; the step then counts as looked at."""
        last, self.last_step = self.last_step, step
        return step != last


class IntervalCallback(L.Callback):
    """Calls its method ``look`` before the first optimizer step, at every ``interval``-th one and after the last one.

    Args:
        interval: number of optimizer steps between two looks.

    Raises:
        ValueError: the interval is below 1.
    """

    def __init__(self, interval: int) -> None:
        self.interval = Interval(interval)

    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """To be overridden: what is logged."""
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.interval.start(trainer.global_step):
            self.look(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if self.interval.due(trainer.global_step):
            self.look(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.interval.overdue(trainer.global_step):
            self.look(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self.interval.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.interval.resume(state_dict["last_step"])


def log_figures(trainer: L.Trainer, figures: dict[str, float]) -> None:
    """Hands figures to every logger under the present optimizer step; nothing where there are none."""
    if figures:
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)
