"""Leaves out a logger that fails, so that the training goes on, and keeps others' loggers from logging twice."""

from __future__ import annotations

import copyreg
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lightning.pytorch.loggers.logger import DummyLogger, Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnnlight.tracking.log_book import LogBook

T = TypeVar("T")

_NOTHING = {"experiment": DummyLogger().experiment, "name": "", "version": ""}
"""What is told in the place of a property that fails, unless it is None."""


def leave_out_once_failed(logger: Logger) -> None:
    """From the first error that a logger raises on, all that is asked of it does nothing; one line on stderr says why.

    The logger becomes an instance of a class derived from its own, made here. So it stays in the trainer's list on all
    ranks, whatever rank it fails on, and is still an instance of what callbacks look for, such as ``WandbLogger``; and
    whatever its class offers is covered, not only what Lightning knows of.

    Args:
        logger: of any class; already made, as an error of its constructor is one of the config.
    """
    if not hasattr(type(logger), "_left_out_from"):
        logger.__class__ = _guarded_class(type(logger))


def keep_book(logger: Logger, book: LogBook) -> None:
    """Lets a logger log nothing twice in a run that goes on.

    Args:
        logger: one of :func:`leave_out_once_failed`, that keeps no book by itself.
        book: what has reached it so far.
    """
    logger.book, logger._left_out_keeps_book = book, True


def attempt(logger: Logger, what: str, call: Callable[[], T]) -> T | None:
    """Calls what is not a method of a logger's, such as one of its experiment; from an error on it is left out as well.

    Args:
        logger: that it is about; errors of one that is not :func:`leave_out_once_failed` are raised.
        what: is done, for the line on stderr.
        call: does it.

    Returns:
        What it returns; None where it fails, or the logger has failed before.
    """
    if not hasattr(type(logger), "_left_out_from"):
        return call()
    if logger._left_out_has_failed:
        return None
    try:
        return call()
    except Exception as error:
        _leave_out(logger, what, error)
        return None


@functools.cache
def _guarded_class(logger_class: type[Logger]) -> type[Logger]:
    """A logger's class whose public methods and properties raise nothing.

    What its own methods call is not guarded a second time: they may well expect an error and handle it.
    """

    class Guarded(logger_class):
        # names that no logger's class has
        _left_out_from = logger_class
        _left_out_is_inside = False
        _left_out_has_failed = False
        _left_out_keeps_book = False

        def __getattribute__(self, name: str) -> Any:
            ask = super().__getattribute__
            if name.startswith("_") or self._left_out_is_inside:
                return ask(name)
            attribute = inspect.getattr_static(type(self), name, None)
            if inspect.isroutine(attribute) or isinstance(attribute, staticmethod | classmethod):

                def method(*args: Any, **kwargs: Any) -> Any:
                    if self._left_out_has_failed:
                        return None
                    return _guarded(self, name, lambda: ask(name)(*args, **kwargs))

                return _new_alone(self, method) if name == "log_metrics" else method
            if isinstance(attribute, property | functools.cached_property):
                # paths and names may be asked for after all
                left_out = self._left_out_has_failed and name == "experiment"
                return _NOTHING.get(name) if left_out else _guarded(self, name, lambda: ask(name))
            return ask(name)

        def __reduce_ex__(self, protocol: int) -> Any:
            # by a class that can be imported, on the way to a process that is spawned
            make, args, *rest = super().__reduce_ex__(protocol)
            if make is not copyreg.__newobj__:
                return make, args, *rest
            return _remade, (logger_class, *args[1:]), *rest

    # its qualified name stays that of a class in a function: a config's short names must not be two classes'
    for name in ("__module__", "__name__", "__doc__"):
        setattr(Guarded, name, getattr(logger_class, name))
    return Guarded


def _guarded(logger: Any, what: str, call: Callable[[], Any]) -> Any:
    logger._left_out_is_inside = True
    try:
        return call()
    except Exception as error:
        _leave_out(logger, what, error)
        return _NOTHING.get(what)
    finally:
        logger._left_out_is_inside = False


def _leave_out(logger: Any, what: str, error: BaseException) -> None:
    if not logger._left_out_has_failed:
        logger._left_out_has_failed = True
        # of a full disk Lightning's logger for TensorBoard says that a figure is not supported
        while error.__cause__ is not None:
            error = error.__cause__
        reason = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
        line = f"logger {type(logger).__name__} left out from now on, it fails in {what} ({reason})"
        print(line, file=sys.stderr, flush=True)


def _new_alone(logger: Any, log: Callable[..., Any]) -> Callable[..., Any]:
    """``log_metrics`` of a logger with a book: what the tracker has already does not go there again."""
    if not logger._left_out_keeps_book:
        return log

    def log_new(metrics: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> Any:
        if step is not None and rank_zero_only.rank == 0:
            metrics = logger.book.new(metrics, step)
        return log(metrics, step=step, **kwargs) if metrics else None

    return log_new


def _remade(logger_class: type[Logger], *args: Any) -> Logger:
    return copyreg.__newobj__(_guarded_class(logger_class), *args)
