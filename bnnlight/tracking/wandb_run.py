"""`WandbRun`: Lightning's logger for Weights & Biases, for runs that are stopped and go on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from wandb.errors import CommError, UsageError

from bnnlight.tracking.fragments import STEP_KEY, Fragment, date_back, find_fragments, read_fragment
from bnnlight.tracking.log_book import LogBook
from bnnlight.tracking.metrics_file import FILE_NAME, read_rows

PICTURES = "pictures"
"""Folder of a run's directory with what was drawn, ``SPLIT-STEP.png``."""


class WandbRun(WandbLogger):
    """Lightning's logger for W&B, for runs that are stopped and go on, and for what W&B's users look for.

    - The best value of each result stands in the run's summary: ``val/acc1.max``, ``val/loss.min``.
    - A run that is resumed in its directory keeps its W&B id. Rows that an earlier start has written already are not
      written again, and what W&B had not yet written when the run was killed is taken from ``metrics.jsonl`` and the
      run's ``pictures``.
    - Training never fails for W&B's sake. Where the server cannot be reached at the start or the end, or W&B's own
      process breaks down, one line says so, the run is kept on the disk, to be synced later, and training goes on.

    What is not given here is taken from W&B's environment variables: ``WANDB_PROJECT``, ``WANDB_ENTITY``,
    ``WANDB_NAME``, ``WANDB_RUN_GROUP``, ``WANDB_JOB_TYPE``, ``WANDB_TAGS``, ``WANDB_NOTES``, ``WANDB_RUN_ID``.

    Args:
        save_dir: the run's directory; W&B writes into its folder ``wandb``.
        project: ``bnnlight`` unless given, here or in ``WANDB_PROJECT``.
        entity: user or team that the project belongs to; the user's own unless given.
        name: of the run.
        group: of runs that belong together, such as the seeds of one experiment.
        job_type: of the run, within its group.
        tags: of the run.
        notes: about the run, as text.
        id: of the run. A new one, or the earlier one of a resumed run, unless given.
        watch: what histograms of all parameters are logged: ``gradients``, ``parameters`` or ``all``; None: none.
        watch_interval: steps between two such looks.
        checkpoints: whether the best and the last checkpoint of a finished run become an artifact, with the aliases
            ``best`` and ``last`` and their metrics as metadata.
        finish_timeout_s: seconds to wait at the end for what is still to be uploaded.

    Attributes:
        book: what W&B has of the run.
    """

    def __init__(
        self,
        save_dir: str = ".",
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        id: str | None = None,
        watch: Literal["gradients", "parameters", "all"] | None = None,
        watch_interval: int = 1000,
        checkpoints: bool = True,
        finish_timeout_s: float = 300.0,
    ) -> None:
        self.watched, self.watch_interval, self.checkpoints = watch, watch_interval, checkpoints
        self.book = LogBook()
        self._defined: set[str] = set()
        self._next_row: int | None = None
        self._broken = False
        self._run: Any = None
        earlier = _earlier_fragments(Path(save_dir)) if rank_zero_only.rank == 0 else []
        if id is None and earlier:
            id = os.environ.get("WANDB_RUN_ID") or earlier[-1].run_id
        self._earlier = [fragment for fragment in earlier if fragment.run_id == id]
        project = project or os.environ.get("WANDB_PROJECT") or "bnnlight"
        super().__init__(name=name, save_dir=save_dir, project=project, id=id)
        self._options = {
            "entity": entity, "project": project, "name": name, "id": id, "group": group, "job_type": job_type,
            "tags": tags, "notes": notes, "dir": save_dir, "resume": "allow",
            "settings": wandb.Settings(finish_timeout=finish_timeout_s, finish_timeout_raises=True),
        }  # fmt: skip

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's own run; a stand-in that does nothing on ranks other than zero."""
        if self._run is None:
            self._run = wandb.run or self._start()
            self._run.define_metric(STEP_KEY)
            self._run.define_metric("*", step_metric=STEP_KEY, step_sync=True)
            if self._earlier:
                self._continue()
        return self._run

    @property
    def version(self) -> str | None:
        """W&B's id of the run; None where it has none yet."""
        return self._run.id if self._run else self._options["id"]

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if self._run is not None and self._run.disabled:
            state["_run"] = None  # a run that logs nothing has nothing to attach to in another process
        return state

    def _start(self) -> Any:
        try:
            return wandb.init(**self._options)
        except (CommError, UsageError) as error:
            if os.environ.get("WANDB_MODE") == "offline":
                raise
            reason = str(error).splitlines()[0]
            _say(f"{reason}; the run is kept in its directory, to be synced later")
            os.environ["WANDB_MODE"] = "offline"  # for what starts later: W&B has read its variables already
            return wandb.init(mode="offline", **self._options)

    def _continue(self) -> None:
        """Takes up where the earlier fragments end."""
        rows = [row for fragment in self._earlier for row in fragment.rows]
        reached = self.book.state()
        self.book.go_on({})
        self.book.read((row for row in rows if STEP_KEY in row), STEP_KEY)
        if rows and not self._run.step:
            # W&B counts rows; a file of its own begins at zero again unless told
            self._next_row = int(rows[-1]["_step"]) + 1
        figures = Path(self.save_dir) / FILE_NAME
        if figures.exists():
            for row in read_rows(figures):
                step = row.pop("step")
                self.log_metrics(row, step)
        for path in sorted((Path(self.save_dir) / PICTURES).glob("*-*.png")):
            split, step = path.stem.split("-", 1)
            try:
                self.log_image(f"{split}/pictures", [str(path)], step=int(step))
            except (OSError, SyntaxError, ValueError):  # half a picture: the run draws it again
                continue
        # training repeats what came after its checkpoint, which is not to be logged again
        self.book.go_on(reached)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        run = self.experiment
        if step is not None:
            metrics = self.book.new(metrics, step)
        if not metrics:
            return
        for key in metrics.keys() - self._defined:
            self._define(key)
        row = metrics if step is None else {**metrics, STEP_KEY: step}
        self._try(lambda: run.log(row, step=self._next_row, commit=True))
        self._next_row = None

    def _define(self, key: str) -> None:
        self._defined.add(key)
        if key.startswith(("val/", "test/", "train/")) and not key.endswith("/pictures"):
            best = "min" if "loss" in key else "max"
            options = {"step_metric": STEP_KEY, "summary": f"{best},last"}
            self._try(lambda: self._run.define_metric(key, **options))

    def _try(self, call: Callable[[], Any]) -> None:
        """Calls W&B, and no more once its process has broken down: a run of days must not end for it."""
        if self._broken:
            return
        try:
            call()
        except (OSError, wandb.Error) as error:
            self._broken = True
            _say(f"it broke down ({error}); training goes on, and --resume would send W&B what is in {FILE_NAME}")

    @rank_zero_only
    def finish(self) -> None:
        """Ends the run on W&B; what cannot be uploaded in time stays on the disk."""
        if self._run is None or self._broken:
            return
        try:
            self._run.finish()
        except (OSError, wandb.Error) as error:  # TimeoutError is an OSError
            command = f"wandb beta sync --no-skip-online {Path(self.save_dir) / 'wandb'}"
            _say(f"not all was uploaded ({error}); the run is kept, to sync it: {command}")

    @rank_zero_only
    def log_checkpoint(self, path: str | Path, alias: str, metadata: Mapping[str, Any]) -> None:
        """Hands a checkpoint over as an artifact of type ``model``.

        Args:
            path: of the file, which must stay as it is.
            alias: ``best`` or ``last``.
            metadata: the checkpoint's metrics.
        """
        artifact = wandb.Artifact(f"checkpoint-{self.experiment.id}", "model", metadata=dict(metadata))
        # not copied: a second copy of every checkpoint on the disk would be for nothing
        artifact.add_file(str(path), name=f"{alias}.ckpt", policy="immutable")
        self._try(lambda: self.experiment.log_artifact(artifact, aliases=[alias]))

    @rank_zero_only
    def log_rows(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Puts a table into the run's summary."""
        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._try(lambda: self.experiment.summary.update({key: table}))


def _say(what: str) -> None:
    print(f"W&B: {what}", file=sys.stderr, flush=True)


def _earlier_fragments(run_dir: Path) -> list[Fragment]:
    date_back(run_dir / "wandb")
    fragments = []
    for path in find_fragments(run_dir / "wandb"):
        try:
            fragments.append(read_fragment(path))
        except ValueError:  # of a start that was killed before W&B had written anything
            fragments.append(Fragment(path, run_id=path.stem.removeprefix("run-")))
    return fragments
