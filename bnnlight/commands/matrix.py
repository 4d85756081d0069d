"""`bnnlight matrix`: trains methods × seeds under one protocol, and reports the differences."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from bnnlight.console.large import large_imports
from bnnlight.console.parser import Parser
from bnnlight.console.shipped_configs import find_config
from bnnlight.matrix.plan.plan import Plan, read_plan
from bnnlight.matrix.runs.ledger import ENDING, Ledger
from bnnlight.matrix.runs.run import check_folders, find_methods, handed_on
from bnnlight.matrix.runs.standing import look

_STOPPED = {signal.SIGTERM: 75, signal.SIGINT: 130}


def matrix(args: list[str]) -> None:
    """Train methods (× optimizers) × seeds under one protocol, and report means, intervals and differences."""
    at = args.index("--") if "--" in args else len(args)
    options, extra = _parser().parse_args(args[:at]), handed_on(args[at + 1 :])
    plan = read_plan(Path(find_config(options.file)))
    check_folders(plan)
    names = find_methods(plan, options.only)
    folder = Path(options.runs or Path("runs", "matrix", plan.path.stem)).expanduser()
    output = Path(options.output).expanduser() if options.output else folder / "report"
    ledger = Ledger(output.with_name(output.name + ENDING), plan.metric)
    standings = look(plan, folder, extra, ledger)
    place = ["--output", options.output] if options.output else []
    command = ["bnnlight", "matrix", options.file, *place, *args[at:]]
    _make_folder(output)
    work = None
    if not options.report and any(standings[name].num_missing for name in names):
        work = _work(plan, folder, extra, names, options, ledger)
        if work.stopped:
            again = shlex.join(["bnnlight", "matrix", *args])
            text = f"stopped by {signal.Signals(work.stopped).name}, {work.num_done} runs made; to go on: {again}"
            print(f"bnnlight matrix: {text}", file=sys.stderr, flush=True)
            raise SystemExit(_STOPPED[work.stopped])
        standings = look(plan, folder, extra, ledger)
    with large_imports():  # late: matplotlib and scipy
        from bnnlight.matrix.report.record import as_record, write_report
    ledger.add(pair for standing in standings.values() for pair in standing.done)
    write_report(as_record(plan, standings, command), output)
    print(f"report: {output}.md, {output}.json, {output}.png; every run: {output}{ENDING}")
    if work and work.num_failed:
        runs = "1 run" if work.num_failed == 1 else f"{work.num_failed} runs"
        print(f"bnnlight matrix: error: {runs} failed, see above; the same command tries again", file=sys.stderr)
        raise SystemExit(1)


def _work(plan: Plan, folder: Path, extra: dict, names: list[str], options: Namespace, ledger: Ledger):
    with large_imports():  # here: the report of runs that are done should not wait for torch
        from bnnlight.experiment.matrix_check import check
    from bnnlight.matrix.runs.machine import Machine
    from bnnlight.matrix.runs.work import Work

    machine = Machine(options.jobs, options.threads)
    work = Work(plan, folder, extra, names, machine, ledger, details=check(plan, names, folder, extra))
    work.run()
    return work


def _make_folder(output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(output.parent, os.W_OK):
        raise ValueError(f"--output {output}: {output.parent} cannot be written to: choose another one")


def _parser() -> Parser:
    parser = Parser(
        "bnnlight matrix",
        description=f"{matrix.__doc__}\nExample: bnnlight matrix matrix/quickstart --jobs 2",
        epilog="Options after -- go to every run: -- --data.root=DIR. The same command resumes where it was stopped.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    text = "The matrix: a YAML file, or the name of one that `bnnlight configs` lists."
    parser.add_argument("file", metavar="FILE", help=text)
    parser.add_argument("--runs", help="Folder of the runs; runs/matrix/NAME unless given.")
    text = (
        "Path of the report without its ending; RUNS/report unless given. Writes .md, .json, .png, and .runs.jsonl, a "
        "line for each run: runs listed there are not made again, even if their folder is gone or on another machine."
    )
    parser.add_argument("--output", help=text)
    parser.add_argument("--jobs", type=int, help="Runs at one time; by default, the number of GPUs, or 1.")
    parser.add_argument("--threads", type=int, help="CPU threads of a run; by default, its share of the cores.")
    text = "Make only the runs of these rows, each a method or a pair, or all of an optimizer; the report has all rows."
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help=text)
    parser.add_argument("--report", action="store_true", help="Make no runs; write the report of those that are done.")
    return parser
