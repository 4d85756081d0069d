"""`bnnlight dashboard`: saves a W&B view that compares the runs of a project."""

from __future__ import annotations

import json

from bnnlight.console.parser import Parser

_DESCRIPTION = """Save a view of a W&B project in which its runs are compared: results, losses, flip rates, ranks, α,
activations, speed, pictures, and the runs' configs beside their results. Its address is printed. Each call saves a
new view and changes no other; views are deleted in the W&B app."""


def dashboard(args: list[str]) -> None:
    """Save a W&B view that compares the runs of a project, or print what it is made of."""
    parser = Parser(
        prog="bnnlight dashboard",
        description=_DESCRIPTION,
        epilog="example: bnnlight dashboard --project bnnlight",
    )
    parser.add_argument("--project", required=True, help="W&B project with the runs")
    parser.add_argument("--entity", help="user or team that owns the project; your default one unless given")
    parser.add_argument("--name", default="bnnlight", help="name of the view (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the view as JSON without using the network")
    options = parser.parse_args(args)
    # imported late: help, and a wrong command line, should not wait for wandb, Lightning and torch
    from bnnlight.tracking.dashboard import as_record, workspace
    from bnnlight.tracking.saved_view import find_project, save

    view = workspace(options.project, options.entity, options.name)
    if options.dry_run:
        print(json.dumps(as_record(view), indent=2, ensure_ascii=False))
        return
    view.entity = find_project(options.project, options.entity)
    print(save(view))
