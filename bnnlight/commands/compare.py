"""`bnnlight compare`: puts runs side by side, as a page or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bnnlight.console.parser import Parser


def compare(args: list[str]) -> None:
    """Put runs side by side: table, learning curves, flip rates, ranks, α."""
    parser = Parser(
        "bnnlight compare",
        description=f"{compare.__doc__} Example: bnnlight compare runs/quickstart/* --output compare.html",
    )
    text = (
        "Directories of runs, offline directories of W&B, .wandb files, folders of TensorBoard's event files, MLflow's "
        "local stores (mlruns or mlflow.db), or entity/project/run on W&B's server."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help=text)
    parser.add_argument("--output", default="compare.html", help="Path of the page; compare.html unless given.")
    parser.add_argument("--json", action="store_true", help="Print the numbers as JSON instead of writing a page.")
    options = parser.parse_args(args)
    output = Path(options.output)
    if not options.json and (output.is_dir() or not output.parent.is_dir()):
        raise ValueError(f"--output {output} is no file that can be written: name one in a folder that exists")
    # imported late: help, and a wrong command line, should not wait for wandb, Lightning and torch
    from bnnlight.tracking.compare import as_page, as_record
    from bnnlight.tracking.runs import read_runs

    runs, unreadable = read_runs(options.runs)
    for problem in (*unreadable, *(problem for run in runs for problem in run.problems)):
        print(f"bnnlight compare: {problem}", file=sys.stderr)
    if not runs:
        raise ValueError("none of the runs could be read")
    if options.json:
        print(json.dumps(as_record(runs, unreadable), indent=1))
        return
    # written beside and moved into place, so that no browser loads half a page
    part = output.with_name(output.name + ".part")
    part.write_text(as_page(runs, unreadable), encoding="utf-8")
    part.replace(output)
    print(f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} compared: {output}")
