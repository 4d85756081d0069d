"""Puts what loggers write into the run's directory, and lets them go on where an earlier start of the run ended."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import CometLogger, CSVLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnnlight.tracking import MetricsFile, read_rows, wandb_mode
from bnnlight.tracking.failing_loggers import keep_book, leave_out_once_failed
from bnnlight.tracking.log_book import LogBook
from bnnlight.tracking.metrics_file import FILE_NAME
from bnnlight.tracking.trackers.comet import offline_rows
from bnnlight.tracking.trackers.handing_over import numbered

TO_GO_ON = "trackers.json"
"""File of a run's directory: name of a logger's class, numbered → arguments by which it goes on with the run."""

_PLACE = ("TensorBoardLogger", "CSVLogger")
"""Lightning's loggers that ask for a ``save_dir``."""
_OPTION = "--trainer.logger"
_COMET = "comet"
"""Folder of a run's directory with what Comet leaves offline, one folder a start."""
_LEFT_OPEN = (None, "", ".")
"""A ``save_dir`` that stands for the run's directory."""
_LIGHTNINGS = (None, "lightning_logs")
"""What Lightning calls an experiment that the user has given no name."""


def with_places(args: list[str]) -> list[str]:
    """The command line with a ``save_dir`` for each logger that asks for one and is given none: the run's directory.

    Args:
        args: the command line behind the verb.
    """
    out: list[str] = []
    for index, arg in enumerate(args):
        out.append(arg)
        if arg.startswith((f"{_OPTION}=", f"{_OPTION}+=")):
            value = arg.partition("=")[2]
        elif index and args[index - 1] in (_OPTION, f"{_OPTION}+"):
            value = arg
        else:
            continue
        rest = args[index + 1 :]
        until = next((i for i, a in enumerate(rest) if a.partition("=")[0].rstrip("+") == _OPTION), len(rest))
        given = any(a.startswith((f"{_OPTION}.save_dir", f"{_OPTION}.init_args.save_dir")) for a in rest[:until])
        if value.rpartition(".")[2] in _PLACE and not given:
            out.append(f"{_OPTION}.save_dir=.")
    return out


def place_loggers(loggers: Any, run_dir: Path, goes_on: bool) -> Any:
    """What the config says of loggers, with the places of this run filled in, and with the run's own file among them.

    What the user has set stays. A ``save_dir`` that is left open, or is ``.``, is the run's directory.

    Args:
        loggers: ``trainer.logger`` of the config.
        run_dir: the run's directory.
        goes_on: whether the run was begun by an earlier start in this directory.

    Returns:
        A list; False where the run has no loggers.
    """
    if not loggers:
        return False
    if loggers is True:  # Lightning's own choice
        kind = "TensorBoardLogger" if importlib.util.find_spec("tensorboard") else "CSVLogger"
        init_args = Namespace(save_dir=".", name=None, version=None)
        loggers = Namespace(class_path=f"lightning.pytorch.loggers.{kind}", init_args=init_args)
    loggers = list(loggers) if isinstance(loggers, list) else [loggers]
    begun = _begun(run_dir) if goes_on else {}
    for logger, name in zip(loggers, numbered([_name(logger) for logger in loggers]), strict=True):
        # one that takes no arguments has none
        if isinstance(logger, Namespace) and "init_args" in logger:
            _go_on(logger.init_args, begun.get(name, {}))
            _place(logger, run_dir)
    if not any(_name(logger) == MetricsFile.__name__ for logger in loggers):
        own = f"{MetricsFile.__module__}.{MetricsFile.__name__}"
        loggers.append(Namespace(class_path=own, init_args=Namespace(save_dir=str(run_dir))))
    return loggers


def _go_on(given: Namespace, arguments: dict[str, str]) -> None:
    """Fills in what the config leaves open; nothing where it names another run."""
    # the first says which run it is
    if any(given.get(name) not in (None, value) for name, value in list(arguments.items())[:1]):
        return
    for name, value in arguments.items():
        given[name] = given.get(name) or value


def _place(logger: Namespace, run_dir: Path) -> None:
    kind, given = _name(logger), logger.init_args
    title = "-".join(run_dir.parts[-2:])
    if kind != "MLFlowLogger" and given.get("save_dir", "given") in _LEFT_OPEN:
        given.save_dir = str(run_dir)
        if kind in _PLACE and given.get("name") in _LIGHTNINGS and given.get("version") is None:
            # one place for all starts of the run
            given.name, given.version = kind.removesuffix("Logger").lower(), ""
    if kind in ("WandbRun", "WandbLogger"):
        # W&B's own variable counts where the config says nothing
        given.name = given.name or os.environ.get("WANDB_NAME") or title
        wandb_mode()
    elif kind == "MLFlowLogger":
        _place_mlflow(given, title)
    elif kind == "CometLogger":
        _place_comet(logger, run_dir, title)


def _place_mlflow(given: Namespace, title: str) -> None:
    if given.experiment_name in _LIGHTNINGS:
        given.experiment_name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "bnnlight"
    given.run_name = given.run_name or title
    if not given.tracking_uri and given.save_dir in (*_LEFT_OPEN, "./mlruns") and importlib.util.find_spec("mlflow"):
        import mlflow

        # Lightning would make a store of files, which MLflow of today refuses
        given.tracking_uri = mlflow.get_tracking_uri()


def _place_comet(logger: Namespace, run_dir: Path, title: str) -> None:
    given, options = logger.init_args, dict(logger.get("dict_kwargs") or {})
    given.project = given.project or os.environ.get("COMET_PROJECT_NAME") or "bnnlight"
    options.setdefault("name", title)
    # else a thousand lines at the end, one for each figure and option
    options.setdefault("display_summary_level", 0)
    if importlib.util.find_spec("comet_ml"):
        # before Lightning imports it, as it does
        os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")
        import comet_ml

        online = given.online
        if online is None and not os.environ.get("COMET_START_ONLINE"):
            # no run stops to ask for a key
            online = bool(given.api_key or comet_ml.get_config("comet.api_key"))
        if online is False:
            # where Lightning is told so itself, it makes an experiment that records nothing
            os.environ["COMET_START_ONLINE"], given.online = "false", None
            # a folder for each start, whose files would else have one name: its random part follows from the run's seed
            starts = run_dir / _COMET
            options.setdefault("offline_directory", str(starts / f"{1 + len(list(starts.glob('*'))):03}"))
            if rank_zero_only.rank == 0:  # Comet makes no folder within another
                Path(options["offline_directory"]).mkdir(parents=True, exist_ok=True)
            if given.mode == "get" and not offline_rows(starts):
                # all starts were killed: nothing is there that could be gone on with
                given.experiment_key = given.mode = None
    logger.dict_kwargs = options


def _name(logger: Any) -> str:
    return logger.class_path.rpartition(".")[2] if isinstance(logger, Namespace) else type(logger).__name__


def _begun(run_dir: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads((run_dir / TO_GO_ON).read_text())
    except (OSError, ValueError):  # a run without such trackers, or begun by an earlier version
        return {}


def guard_loggers(loggers: list[Logger], run_dir: Path, goes_on: bool) -> None:
    """Lets no logger but the run's own file end the training, and none log twice what an earlier start has logged.

    A ``CSVLogger`` begins its file anew whenever it is made, and an offline start of Comet's that was killed leaves
    nothing. They get from the run's own file what they lack.

    Args:
        loggers: the trainer's.
        run_dir: the run's directory.
        goes_on: whether the run was begun by an earlier start in this directory.
    """
    figures = run_dir / FILE_NAME
    rows = list(read_rows(figures)) if goes_on and figures.exists() and rank_zero_only.rank == 0 else []
    for logger in loggers:
        # a part of what goes on bit for bit: without it the run ends, and goes on later
        if isinstance(logger, MetricsFile):
            continue
        leave_out_once_failed(logger)
        if isinstance(getattr(logger, "book", None), LogBook):
            continue
        book = LogBook()
        keep_book(logger, book)
        if not rows or not _is_in(run_dir, logger):
            book.read(rows)
            continue
        book.read(offline_rows(run_dir / _COMET) if isinstance(logger, CometLogger) else [])
        for row in rows:
            logger.log_metrics({key: value for key, value in row.items() if key != "step"}, step=int(row["step"]))
        logger.save()
        book.go_on({})


def _is_in(run_dir: Path, logger: Logger) -> bool:
    """Whether it is a logger that keeps what it gets in the run's directory, and lacks of it what came before."""
    place = logger.save_dir if isinstance(logger, CSVLogger | CometLogger) else None
    return bool(place) and Path(place).is_relative_to(run_dir)
