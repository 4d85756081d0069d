"""The directory of a run: where a new run goes, and from which checkpoint a resumed run goes on."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnnlight.experiment.checkpoint_io import damage
from bnnlight.experiment.run_lock import RunLock

RUN_DIR_VARIABLE = "BNNLIGHT_RUN_DIR"
"""Environment variable through which the processes of one run agree on its directory."""


def new_run_dir(config: Namespace) -> tuple[Path, RunLock | None]:
    """The directory of a new run, the same for all processes of it: as asked for, or ``runs/CONFIG/TIME``.

    Returns:
        The directory, and on rank zero its lock.

    Raises:
        ValueError: the directory asked for holds a run already.
        OSError: it cannot be written to, or another run is in it.
    """
    # rank zero decides, and the processes that it starts find its choice in their environment
    if rank_zero_only.rank != 0 and RUN_DIR_VARIABLE in os.environ:
        return Path(os.environ[RUN_DIR_VARIABLE]), None
    if config.run_dir:
        run_dir = Path(config.run_dir).expanduser()
        if (run_dir / "config.yaml").exists():
            raise ValueError(
                f"{run_dir} already holds a run: resume it with --resume, choose another --run_dir, or leave it out"
            )
        lock = RunLock(run_dir) if rank_zero_only.rank == 0 else None
    else:
        run_dir, lock = _own_run_dir(config)
    os.environ[RUN_DIR_VARIABLE] = str(run_dir)
    return run_dir, lock


def _own_run_dir(config: Namespace) -> tuple[Path, RunLock | None]:
    file = Path(str((config.get("config") or ["run"])[-1]))
    # the config of an earlier run, repeated: RUNS/NAME/TIME/config.yaml
    name = file.resolve().parent.parent.name if file.name == "config.yaml" else file.stem
    base = Path("runs") / (name or "run") / time.strftime("%Y%m%d-%H%M%S")
    if rank_zero_only.rank != 0:
        return base, None
    run_dir, count = base, 1
    while True:
        try:
            return run_dir, RunLock(run_dir, new=True)
        except FileExistsError:  # two runs in one second, or a clock that was set back
            count += 1
            run_dir = base.with_name(f"{base.name}-{count}")


def resumed_run_dir(config: Namespace) -> tuple[Path, RunLock | None]:
    """The directory in which a run goes on, whether there is a run in it already or not.

    Returns:
        The directory, and on rank zero its lock.

    Raises:
        ValueError: no directory is named.
        OSError: it cannot be written to, or another run is in it.
    """
    if not config.run_dir:
        raise ValueError("--resume needs the run's directory: pass --run_dir DIR")
    run_dir = Path(config.run_dir).expanduser()
    return run_dir, RunLock(run_dir) if rank_zero_only.rank == 0 else None


def newest_checkpoint(*folders: Path) -> str | None:
    """The checkpoint with the most steps among those of some folders that are whole; None where there are none at all.

    Steps count, not the files' times, since clocks jump. What is damaged is renamed to ``….ckpt.damaged``, and one line
    on stderr says so. What holds weights alone is left out: nothing can go on from it.

    Raises:
        ValueError: there are checkpoints, and none of them is whole.
    """
    candidates, damaged = [], []
    paths = {path.resolve(): path for folder in folders for path in folder.glob("*.ckpt")}
    for path in sorted(paths.values()):
        try:
            num_steps = _num_steps(path)
            if num_steps is not None:
                candidates.append((num_steps, _RANKS.get(path.name, 0), str(path)))
        except FileNotFoundError:  # set aside by rank zero, while another rank looks
            continue
        except ValueError as error:
            damaged.append((path, f"{path} is damaged: {error}"))
    newest = max(candidates, default=None)
    if newest is None and damaged:
        text = f"{damaged[0][1]}; no other checkpoint of the run is left, to begin afresh choose another --run_dir"
        raise ValueError(text)
    for path, text in damaged if rank_zero_only.rank == 0 else ():
        # kept, for whoever wants to look at it, but out of the way of the next ones
        path.rename(path.with_name(path.name + ".damaged"))
        print(f"bnnlight fit: {text}; going on from {newest[2]}, step {newest[0]}", file=sys.stderr, flush=True)
    return newest and newest[2]


# at the same step, the one that was written last
_RANKS = {"next.ckpt": 3, "last.ckpt": 2, "previous.ckpt": 1}


def _num_steps(path: Path) -> int | None:
    wrong = damage(path)
    if wrong:
        raise ValueError(wrong)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        num_steps = int(content["global_step"])
        return None if "state_dict" in content and "optimizer_states" not in content else num_steps
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = str(error).splitlines()
        raise ValueError(f"it cannot be read ({reason[0] if reason else type(error).__name__})") from error
