"""Finds out whether a run that is started again has finished already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace

from bnnlight.guards.moment import MOMENT

_DEFAULT_MAX_EPOCHS = 1000
"""How many epochs Lightning trains where neither epochs nor steps are named."""
_ENDING = tuple(f"trainer.{name}" for name in ("callbacks", "max_time", "min_epochs", "min_steps"))
"""Options that decide whether a training ends before its last epoch."""


class Finished(Exception):
    """There is nothing left to do. The message says so in one line."""


def check_finished(config: Namespace, run_dir: Path, newest: str, changes: Sequence[str]) -> bool:
    """Looks whether a run has come to its end.

    Args:
        config: that the run is started with now.
        run_dir: of the run.
        newest: path of its newest checkpoint.
        changes: in the config since the run began, one line each.

    Returns:
        Whether a training that was ended before its last epoch is to go on.

    Raises:
        Finished: it was trained as long as the config says, or EarlyStopping, say, has ended it, and its results
            are written.
    """
    content = torch.load(newest, map_location="cpu", weights_only=True, mmap=True)
    trainer, results = config.trainer, read_results(run_dir)
    epochs, steps = content["loops"]["fit_loop"]["epoch_progress"]["total"]["completed"], content["global_step"]
    moment = content.get(MOMENT)
    if moment is None and results and results.get("num_steps") == steps:  # of an earlier version, which told it so
        epochs = results["num_epochs"]
        moment = {"ended": True, "should_stop": not changes}
    if not moment or not moment["ended"]:
        return False
    max_steps = trainer.max_steps if trainer.max_steps is not None else -1
    max_epochs = trainer.max_epochs
    if max_epochs is None:
        max_epochs = _DEFAULT_MAX_EPOCHS if max_steps == -1 else -1
    reached = {"steps": 0 <= max_steps <= steps, "epochs": 0 <= max_epochs <= epochs}
    is_freed = any(change.startswith(_ENDING) for change in changes)
    if not any(reached.values()) and (is_freed or not moment["should_stop"]):
        return bool(moment["should_stop"])
    if results is None or (config.test_after_fit and not _asked_for_test(run_dir)):
        return False
    how = "steps" if reached["steps"] else "epochs"
    longer = f"raise --trainer.max_{how}" if any(reached.values()) else "change trainer.callbacks, which ended it early"
    raise Finished(
        f"the run in {run_dir} has finished ({epochs} epochs, {steps} steps): nothing is left to do; results: "
        f"{run_dir / 'results.json'}; to train longer, {longer}"
    )


def read_results(run_dir: Path) -> dict[str, Any] | None:
    """What stands in a run's ``results.json``; None where there is none, or none that can be read."""
    try:
        results = json.loads((run_dir / "results.json").read_text())
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) else None


def _asked_for_test(run_dir: Path) -> bool:
    try:
        config = yaml.safe_load((run_dir / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return True
    return not isinstance(config, dict) or config.get("test_after_fit") is not False
