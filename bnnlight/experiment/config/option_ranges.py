"""Ranges of a config's numbers, checked before any object is made of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

if TYPE_CHECKING:
    import lightning as L

Check = tuple[Callable[[Any], bool], str]
"""Whether a value is right, and which ones are."""


def _at_least(least: float) -> Check:
    return lambda value: value >= least, f"{least} or more"


_POSITIVE, _NOT_NEGATIVE, _OR_NO_END = (
    _at_least(1),
    _at_least(0),
    (lambda v: v >= 1 or v == -1, "1 or more, or -1 for no limit"),
)
_SHARE: Check = (
    lambda v: v >= 0 and (v <= 1 or v % 1 == 0),
    "a number of batches of 0 or more, or a share from 0.0 to 1.0",
)
_INTERVAL: Check = (
    lambda v: v > 0 and (v <= 1 or v % 1 == 0),
    "a number of batches of 1 or more, or a share above 0.0 and up to 1.0",
)

_RANGES: dict[str, Check] = {
    "seed_everything": (lambda v: 0 <= v < 2**32, f"a number from 0 to {2**32 - 1}"),
    **{f"trainer.{name}": _POSITIVE for name in ("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes")},
    **{
        f"trainer.{name}": _NOT_NEGATIVE
        for name in ("gradient_clip_val", "log_every_n_steps", "min_epochs", "min_steps")
    },
    **{f"trainer.{name}": _OR_NO_END for name in ("max_epochs", "max_steps")},
    **{f"trainer.limit_{name}_batches": _SHARE for name in ("val", "test", "predict")},
    "trainer.limit_train_batches": _INTERVAL,  # of 0 Lightning trains nothing, and says nothing
    "trainer.overfit_batches": _SHARE,
    "trainer.val_check_interval": _INTERVAL,
    "trainer.num_sanity_val_steps": (lambda v: v >= -1, "0 or more, or -1 for all of the validation data"),
    "trainer.reload_dataloaders_every_n_epochs": _NOT_NEGATIVE,
    "trainer.devices": (lambda v: v >= 1 or v == -1, "1 or more, or -1 for all"),
    "data.batch_size": _POSITIVE,
    "data.num_workers": _NOT_NEGATIVE,
    "data.image_size": _POSITIVE,
    "model.warmup": (lambda v: 0 <= v < 1, "the share of the run it takes, from 0 to below 1"),
    "model.label_smoothing": (lambda v: 0 <= v < 1, "a share from 0 to below 1"),
    "model.alpha_lr": _NOT_NEGATIVE,
    "model.optimizer.lr": _NOT_NEGATIVE,
    "model.optimizer.weight_decay": _NOT_NEGATIVE,
    **{f"model.optimizer.{name}": _POSITIVE for name in ("interval", "covariance_interval", "block", "steps")},
    "model.optimizer.last_renewal": _NOT_NEGATIVE,
    "model.optimizer.covariance_beta": (lambda v: 0 <= v < 1, "a number from 0 to below 1"),
    "model.optimizer.rms": (lambda v: v > 0, "a number above 0"),
    "pictures.count": _NOT_NEGATIVE,
}
_CALLBACKS = ("flip_rates", "factor_ranks", "alphas", "activations", "pictures", "bad_images", "step_time")
_RANGES |= {f"{name}.interval": (lambda v: v >= 1, "a number of steps of at least 1") for name in _CALLBACKS}

DEVICES_PER_CORE = 4
"""So many processes for each core of a machine may train on a CPU: more would only wait for one another."""


def check_ranges(config: Namespace) -> None:
    """Compares the numbers of a config with what they may be.

    Raises:
        ValueError: one is out of range; the message names the option.
    """
    for option in _RANGES:
        if problem := fault(option, _get(config, option.split("."))):
            raise ValueError(problem)


def check_bare(trainer: Namespace) -> None:
    """
    Args:
        trainer: options of one that trains.

    Raises:
        ValueError: it is to be a bare one, and what it then must not have is not switched off.
    """
    off = {"logger": (False,), "enable_progress_bar": (False,), "enable_checkpointing": (False,)}
    off["log_every_n_steps"] = (None, 0)
    left = [name for name, values in off.items() if trainer.get(name) not in values]
    if trainer.get("barebones") and left:
        options = " ".join(f"--trainer.{name} {'0' if name.startswith('log_') else 'false'}" for name in left)
        raise ValueError(f"trainer.barebones clashes with {', '.join(left)}: leave it out, or give {options} besides")


def fault(option: str, value: Any) -> str | None:
    """What is wrong with a number, in one line; None where nothing is, or where it is none.

    Args:
        option: as it is typed, without dashes.
        value: as it was read.
    """
    is_right, words = _RANGES.get(option, (None, ""))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_right and is_number and (math.isnan(value) or not is_right(value)):
        return f"{option} is {value}: give {words}"
    return None


def check_devices(trainer: L.Trainer) -> None:
    """
    Raises:
        ValueError: far more processes are to train on this machine's CPU than it has cores.
    """
    most = DEVICES_PER_CORE * (os.cpu_count() or 1)
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > most:
        raise ValueError(
            f"trainer.devices is {trainer.num_devices}, each a process on a CPU of {os.cpu_count()} cores: give {most} "
            "or less"
        )


def _get(config: Any, path: list[str]) -> Any:
    """The value of an option, looking into ``init_args`` as the command line does; None where there is none."""
    for name in path:
        if not isinstance(config, Namespace):
            return None
        inner = config.get("init_args") if "class_path" in config else config
        config = inner.get(name) if isinstance(inner, Namespace) else None
    if isinstance(config, str) and config.lstrip("-").isdigit():  # devices may be given as text
        return int(config)
    return config
