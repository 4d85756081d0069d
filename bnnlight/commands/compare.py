"""`bnnlight compare`: puts runs side by side, as a page or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from bnnlight.console.parser import Parser
from bnnlight.console.tables import print_whole

if TYPE_CHECKING:
    from bnnlight.tracking.runs import Run


def compare(args: list[str]) -> None:
    """Put runs side by side: table, learning curves, flip rates, ranks, α."""
    parser = Parser(
        "bnnlight compare",
        description=f"{compare.__doc__} Example: bnnlight compare runs/quickstart/* --output compare.html",
    )
    text = (
        "Directories of runs, or folders with such in them, offline directories of W&B, .wandb files, folders of "
        "TensorBoard's event files, MLflow's local stores (mlruns or mlflow.db), or entity/project/run on W&B's server."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help=text)
    parser.add_argument("--output", default="compare.html", help="Path of the page; compare.html unless given.")
    parser.add_argument("--json", action="store_true", help="Print the numbers as JSON instead of writing a page.")
    options = parser.parse_args(args)
    output = Path(options.output)
    if not options.json and (output.is_dir() or not output.parent.is_dir()):
        raise ValueError(f"--output {output} is not a file that can be written: name one in a folder that exists")
    if not options.json and output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--output {options.output} is not a page: give a name that ends in .html")
    # imported late: help, and a wrong command line, should not wait for wandb, Lightning and torch
    from bnnlight.tracking.compare import as_record
    from bnnlight.tracking.runs import read_runs, runs_in

    named = _each_once([run for source in options.runs for run in runs_in(source)])
    found, unreadable = read_runs(named)
    runs = [run for run in found if run.has_figures]
    empty = [run for run in found if not run.has_figures]
    problems = [*unreadable, *(problem for run in found for problem in run.problems)]
    problems += [
        f"{run.source}: left out: it logged no figures, as happens if a run is stopped at once" for run in empty
    ]
    for problem in problems:
        print(f"bnnlight compare: {problem}", file=sys.stderr)
    if not runs:
        raise ValueError("none of the runs has figures" if empty else "none of the runs could be read")
    if options.json:
        print(json.dumps(as_record(runs, unreadable, empty), indent=1))
        _check_all_are_there(unreadable)
        return
    from bnnlight.tracking.page import as_page

    # written beside and moved into place, so that no browser loads half a page
    part = output.with_name(output.name + ".part")
    part.write_text(as_page(runs, problems), encoding="utf-8")
    part.replace(output)
    _print_results(runs)
    print(f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} compared: {output}")
    _check_all_are_there(unreadable)


def _each_once(sources: Sequence[str]) -> list[str]:
    """The sources, without those that name a path again."""
    named: dict[str, str] = {}
    for source in sources:
        path = Path(source).expanduser()
        key = str(path.resolve()) if path.exists() else source
        if key in named:
            print(f"bnnlight compare: {source} is the same run as {named[key]}, and is compared once", file=sys.stderr)
        named.setdefault(key, source)
    return list(named.values())


def _check_all_are_there(unreadable: Sequence[str]) -> None:
    """So that a script hears of a run that is missing."""
    if unreadable:
        count = len(unreadable)
        raise OSError(f"{count} {'run' if count == 1 else 'runs'} could not be read and left out, as reported above")


def _print_results(runs: list[Run]) -> None:
    """The main results of each run as a table; the settings are on the page."""
    from bnnlight.tracking.compare import columns, labels

    results = [column for column in columns(runs) if column.is_result and not column.is_folded]
    table = Table()
    table.add_column("run", overflow="fold")
    for column in results:
        table.add_column(column.name, justify="right")
    for number, name in enumerate(labels(runs)):
        table.add_row(escape(name), *(column.texts[number] for column in results))
    print_whole(table)
