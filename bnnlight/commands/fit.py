"""`bnnlight fit`, `validate` and `test`: train a network, or measure a checkpoint."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

# Before torch: W&B starts a run by importing this, and looks for the source of each class in it through all modules
# that are loaded by then. Behind torch's thousands that took a second and a half.
import wandb.sdk.launch  # noqa: F401

# isort: split
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnnlight.experiment.experiment import Experiment
from bnnlight.experiment.finished import Finished
from bnnlight.experiment.fit_checks import check_data, check_plan
from bnnlight.experiment.freed_memory import keep_freed_memory
from bnnlight.experiment.processes import leave_process_group
from bnnlight.experiment.report import draw_curves, print_results, read_metrics, write_json
from bnnlight.experiment.save_config import provenance
from bnnlight.experiment.trained.needs import lacking
from bnnlight.guards.stop_signals import Stopped
from bnnlight.tasks.checkpoints import check_fits, read_checkpoint
from bnnlight.tracking import MetricsFile, WandbRun, sync_hint, wandb_mode
from bnnlight.tracking.trackers import finish
from bnnlight.tracking.trackers import places as tracker_places

_EXAMPLES = {
    "fit": "bnnlight fit --config quickstart --trainer.max_epochs 5",
    "validate": "bnnlight validate --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt",
    "test": "bnnlight test --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt",
}


def fit(args: list[str]) -> None:
    """Train a network, then test its best checkpoint."""
    try:
        experiment = Experiment("fit", _describe("fit", fit), args, for_fit=True)
    except Finished as finished:
        _say_finished(finished)
        return
    try:
        with experiment.config_init.last_checkpoint.signals:
            _fit(experiment)
    except Stopped as stopped:
        _tell(stopped, experiment)
        if stopped.saved:  # all processes stop after the same step then
            leave_process_group()
        raise
    finally:
        experiment.release()


def _fit(experiment: Experiment) -> None:
    trainer, run_dir = experiment.trainer, experiment.run_dir
    _prepare_memory(experiment)
    _check_inputs(experiment, "fit")
    if trainer.is_global_zero:
        print(f"run directory: {run_dir}", flush=True)
        if any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
            print(_wandb_line(), flush=True)
    trainer.fit(experiment.model, experiment.datamodule, ckpt_path=experiment.config.ckpt_path)
    if trainer.fast_dev_run:
        leave_process_group()
        return
    logged = trainer.callback_metrics.items()
    last_epoch = {f"last {k}": float(v) for k, v in logged if k.startswith(("val/", "train/"))}
    results: dict[str, float] = {}
    # not the trainer's first: a user may have added others
    own = experiment.config_init.checkpoint
    checkpoint = own if own in trainer.checkpoint_callbacks else None
    best = checkpoint.best_model_path if checkpoint else ""
    last = str(experiment.config_init.last_checkpoint.path)
    # found to be damaged when the run was resumed, and set aside; or forgotten, since averages took the weights' place
    if checkpoint and not Path(best).is_file() and (best or checkpoint.monitor in trainer.callback_metrics):
        best = last
    if best:
        if checkpoint.best_model_score is not None:
            results[f"best {checkpoint.monitor}"] = float(checkpoint.best_model_score)
        if experiment.config.test_after_fit:
            tested = trainer.test(experiment.model, experiment.datamodule, ckpt_path=best, verbose=False)
            results |= {k: float(v) for part in tested for k, v in part.items()}
    # before rank zero goes on alone: with NCCL all have to leave at about the same time
    leave_process_group()
    _finish(experiment, results | last_epoch, best)


def _prepare_memory(experiment: Experiment) -> None:
    # of a GPU's tensors there are none in it, and a data set's pictures need not be kept
    if experiment.trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()


@rank_zero_only
def _say_finished(finished: Finished) -> None:
    print(f"bnnlight fit: {finished}", flush=True)


@rank_zero_only
def _tell(stopped: Stopped, experiment: Experiment) -> None:
    run_dir = experiment.run_dir
    config = run_dir / "config.yaml"
    if config.exists():
        step = experiment.trainer.global_step
        saved = f"saved at step {step}" if stopped.saved else "what was saved before is kept"
        command = shlex.join(["bnnlight", "fit", "--config", str(config), "--run_dir", str(run_dir), "--resume"])
        print(f"bnnlight fit: stopped by {stopped.reason}, {saved}; to go on: {command}", file=sys.stderr, flush=True)
    else:
        print(f"bnnlight fit: stopped by {stopped.reason} before the training began", file=sys.stderr, flush=True)


@rank_zero_only
def _check_inputs(experiment: Experiment, stage: str) -> None:
    """Finds what would end or spoil the run later, before loggers have written anything.

    That is missing data, wrong checkpoints, a teacher that is not there, monitors that nothing logs, and a network that
    the data do not fit.
    """
    if stage == "fit":
        check_plan(experiment)
    checkpoint = experiment.config.ckpt_path
    if checkpoint:
        check_fits(read_checkpoint(checkpoint)["state_dict"], experiment.model, checkpoint)
    teacher = getattr(experiment.model, "teacher", None)
    if teacher and stage == "fit":
        teacher.load()
    if experiment.datamodule is not None:
        experiment.datamodule.prepare_data()
        experiment.datamodule.setup(stage)
        check_data(experiment, stage)
        if stage == "fit" and (found := lacking(experiment.model, experiment.datamodule)):
            text = "; ".join(found)
            print(f"bnnlight fit: before export and predict: {text} (docs/own_code.md)", file=sys.stderr, flush=True)


@rank_zero_only
def _finish(experiment: Experiment, results: dict[str, float], best: str) -> None:
    run_dir, trainer = experiment.run_dir, experiment.trainer
    places = {"run directory": str(run_dir)}
    if best:
        # short where it lies in the run's directory; --checkpoint.dirpath may have put it elsewhere
        inside = Path(best).is_relative_to(run_dir.resolve())
        places["best checkpoint"] = str(run_dir / Path(best).relative_to(run_dir.resolve())) if inside else best
    figures = [logger.path for logger in trainer.loggers if isinstance(logger, MetricsFile) and logger.path.exists()]
    if figures:
        picture = run_dir / "curves.png"
        draw_curves(read_metrics(figures[0]), picture, title="/".join(run_dir.parts[-2:]))
        places["curves"] = str(picture)
    record = {
        **provenance(),
        "seed": experiment.config.seed_everything,
        "num_epochs": trainer.current_epoch,
        "num_steps": trainer.global_step,
        "torch": torch.__version__,
        "results": results,
    }
    on_validation = any(key.startswith("test/") for key in results) and _tests_on_validation(experiment.datamodule)
    if on_validation:
        record["tested_on"] = "validation"
    write_json(run_dir / "results.json", record)
    places["results"] = str(run_dir / "results.json")
    # last, as uploading takes its time; but before the user is told where the run lies
    for logger in trainer.loggers:
        if isinstance(logger, WandbRun) and logger.checkpoints:
            _hand_over_checkpoints(logger, experiment, results, best)
    places |= tracker_places(trainer.loggers)
    finish(trainer.loggers)
    offline = sync_hint(run_dir)
    if offline:
        places["W&B offline run"], places["to sync it"] = str(offline[0]), offline[1]
    if on_validation:
        places["test pictures"] = "those of the validation, which chose the best checkpoint: the data have no others"
    print_results("Results", results, places)


def _tests_on_validation(data: Any) -> bool:
    test_set = getattr(data, "test_set", None)
    return test_set is not None and test_set is getattr(data, "val_set", None)


def _hand_over_checkpoints(logger: WandbRun, experiment: Experiment, results: dict[str, float], best: str) -> None:
    newest = experiment.run_dir / "checkpoints" / "last.ckpt"
    count = {"epoch": experiment.trainer.current_epoch, "step": experiment.trainer.global_step}
    for path, alias, prefixes in ((newest, "last", "last "), (Path(best or newest), "best", ("best ", "test/"))):
        if path.is_file():
            figures = {key.removeprefix("last "): value for key, value in results.items() if key.startswith(prefixes)}
            logger.log_checkpoint(path, alias, figures | (count if alias == "last" else {}))


def _wandb_line() -> str:
    if wandb_mode() == "offline":
        return "W&B is offline; the run stays in its directory (to change: `wandb login`, or WANDB_MODE=online)"
    return f"W&B: {wandb_mode()}"


def validate(args: list[str]) -> None:
    """Measure a checkpoint on the validation data."""
    _evaluate("validate", args)


def test(args: list[str]) -> None:
    """Measure a checkpoint on the test data."""
    _evaluate("test", args)


def _evaluate(verb: str, args: list[str]) -> None:
    experiment = Experiment(verb, _describe(verb, globals()[verb]), args)
    checkpoint = experiment.config.ckpt_path
    if not checkpoint:
        raise ValueError("no checkpoint to measure: pass --ckpt_path RUN/checkpoints/best.ckpt")
    _prepare_memory(experiment)
    _check_inputs(experiment, verb)
    run = getattr(experiment.trainer, verb)
    measured = run(experiment.model, experiment.datamodule, ckpt_path=checkpoint, verbose=False)
    leave_process_group()
    if experiment.trainer.is_global_zero:
        results = {k: float(v) for part in measured for k, v in part.items()}
        print_results(f"{verb}: {checkpoint}", results, {})


def _describe(verb: str, function) -> str:
    return f"{function.__doc__} Example: {_EXAMPLES[verb]}"
