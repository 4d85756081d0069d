"""How soon runs reach a figure, as columns of a page."""

from __future__ import annotations

import math
from typing import Any

from bnnlight.matrix.plan.units import Unit

Record = dict[str, Any]


def reach_heads(record: Record) -> list[str]:
    """Of the two columns; none where no figure is to be reached.

    Args:
        record: of :func:`~bnnlight.matrix.report.record.as_record`.
    """
    if "reach" not in record:
        return []
    return [f"processor seconds to {_target(record)}", f"× those of {record['baseline']}"]


def reach_cells(row: Record, record: Record) -> list[str]:
    """Mean and interval of the seconds, with how many runs reach the figure; and as a share of the baseline's."""
    if "reach" not in record:
        return []
    if record["reach"]["target"] is None or not row["by_seed"]:
        return ["", ""]
    by_seed = row["reach"]["by_seed"]
    if not by_seed:
        return ["not logged", ""]
    num = sum(seconds is not None for seconds in by_seed.values())
    count = f"({num} of {len(by_seed)})"
    if not num:
        return [f"not reached {count}", ""]
    shares = row["reach"]["of_baseline"]
    is_other = row["method"] != record["baseline"]
    return [f"{_interval(row['reach']['seconds'])} {count}", _interval(shares) if shares and is_other else ""]


def reach_text(record: Record) -> list[str]:
    """What the columns say."""
    if "reach" not in record:
        return []
    direction = "at least" if record["direction"] == "max" else "at most"
    if record["reach"]["target"] is None:
        what = "It is given once the baseline's runs are done: the target is their mean last figure on held-out data."
        return [f"Processor seconds: none yet. {what}"]
    of = "the mean of the baseline's last figures, " if record["reach"]["asked"] == "baseline" else ""
    return [
        f"Processor seconds to {_target(record)}: {of}on held-out data. For each run this is the user and system "
        f"time since training began, validations included, up to the first validation with {direction} that figure. "
        "The mean is over the runs that reach it; their count is in brackets, out of the runs that logged their time. "
        "So where not all reach it, the slowest are missing from the mean. × is the mean of the ratios to the "
        "baseline's seconds, over the seeds with which both runs reach the figure. Intervals are Student's at 95 %."
    ]


def _target(record: Record) -> str:
    target = record["reach"]["target"]
    return "the baseline's last figure" if target is None else Unit(record["metric"]).show(target)


def _interval(record: Record) -> str:
    half = record["half_interval"]
    return _number(record["mean"]) + (f" ± {_number(half)}" if half is not None else "")


def _number(value: float) -> str:
    """Three digits, and all of those before the point."""
    if not value:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
