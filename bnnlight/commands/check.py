"""`bnnlight check`: reads a config's whole data set, and names what cannot be read."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt
from lightning.pytorch.cli import LightningArgumentParser
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bnnlight.callbacks.pictures import contact_sheet
from bnnlight.console.tables import print_whole
from bnnlight.data.keypoints.data_module import PoseDataModule
from bnnlight.data.keypoints.sheet import annotated_crops
from bnnlight.data.loading.checking import Split, examine, shared_files
from bnnlight.deploy.formats.workers import num_cores
from bnnlight.experiment.experiment import Experiment
from bnnlight.experiment.fit_checks import check_data

MAX_LINES = 20
"""Of one kind on the terminal."""
SHEET = "check_crops.png"
NUM_CROPS = 11
"""On the sheet of annotated crops, besides the key to the joints."""
_SETS = {"train": "train_set", "val": "val_set", "test": "test_set"}


class _CheckExperiment(Experiment):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        text = "Processes that read; one for each available CPU core by default."
        parser.add_argument("--num_workers", type=NonNegativeInt | None, default=None, help=text)
        text = f"File for annotated crops of pose data beside their mirror images; {SHEET} by default, null for none."
        parser.add_argument("--sheet", type=str | None, default=SHEET, help=text)
        parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        # nothing is computed, and where the data are looked at there may be no GPU
        self.config.trainer.accelerator, self.config.trainer.devices, self.config.trainer.num_nodes = "cpu", 1, 1
        self.config.trainer.strategy, self.config.trainer.precision = "auto", None


def check(args: list[str]) -> None:
    """Read all pictures of a config's data in full, before a long run, and name those that cannot be read.

    Each goes through its transform too. Told besides: sizes of sets and classes, annotated joints, and files with the
    same content among the training pictures and those to measure on. Of pose data a sheet of annotated crops is drawn.
    The network is asked first whether it has as many joints or classes.
    """
    example = "Example: bnnlight check --config resnet18_imagenet --data.root DIR"
    experiment = _CheckExperiment("check", f"{check.__doc__} {example}", args)
    config = experiment.config
    sets = data_sets(experiment.datamodule)
    is_pose = isinstance(experiment.datamodule, PoseDataModule)
    try:
        # as for measuring, which needs no teacher
        check_data(experiment, "validate")
    except ValueError as error:
        if is_pose:
            raise
        # pictures can be read for any network, and a folder is often looked at before the network is chosen
        print(f"warning: fit would end at once: {error}", file=sys.stderr)
    num_workers = num_cores() if config.num_workers is None else config.num_workers
    splits: dict[str, Split] = {}
    # a set that is another one under a second name is read once
    names: dict[int, str] = {}
    with _progress(sum(len(view) for view in {id(view): view for view in sets.values()}.values())) as advance:
        for name, view in sets.items():
            first = names.setdefault(id(view), name)
            splits[name] = splits[first] if first != name else examine(view, num_workers, advance)
    same = {name: names[id(view)] for name, view in sets.items() if names[id(view)] != name}
    record = as_record(splits, same, getattr(experiment.datamodule, "classes", None))
    sheet = _draw_sheet(experiment.datamodule, sets, config.sheet) if is_pose and config.sheet else None
    if sheet:
        record["sheet"] = str(sheet)
    if config.json:
        print(json.dumps(record, indent=2))
    else:
        _print(record)
        if sheet:
            print(f"annotated crops, each beside its mirror image: {sheet}")
    _warn(record)
    bad = {file for split in splits.values() for file in split.unreadable}
    if bad:
        number = sum(split.num_items for name, split in splits.items() if name not in same)
        raise OSError(
            f"{len(bad)} of {number} pictures cannot be read: replace or remove them, "
            "or train with --data.on_bad_image skip"
        )


def _draw_sheet(data: PoseDataModule, sets: dict[str, Any], name: str) -> Path | None:
    """Path of the sheet; None where there is nothing to draw, or where it cannot be written."""
    view = sets.get("train", next(iter(sets.values())))
    tiles = annotated_crops(data, view, NUM_CROPS)
    path = Path(name).expanduser().absolute()
    try:
        if tiles:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(contact_sheet(tiles)).save(path)
    except (OSError, ValueError) as error:
        # what was read is worth more than the picture
        print(f"warning: cannot write {path} ({error}): pass --sheet with another place", file=sys.stderr)
        return None
    return path if tiles else None


def data_sets(data: Any) -> dict[str, Any]:
    """A data module's sets, ready to be read: "train", "val", "test" → a data set.

    Raises:
        ValueError: There is no data module, or it has none of the three.
    """
    if data is None:
        raise ValueError("no data is configured: pass --config FILE, or --config NAME of `bnnlight configs`")
    if hasattr(data, "on_bad_image"):
        # damaged headers are to be listed with all else, and not to end the check
        data.on_bad_image = "skip"
    with _told():
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
    sets = {name: getattr(data, attribute, None) for name, attribute in _SETS.items()}
    sets = {name: view for name, view in sets.items() if view is not None}
    if not sets:
        names = ", ".join(_SETS.values())
        raise ValueError(f"{type(data).__name__} has none of {names} after setup: set them, so that they can be read")
    return sets


@contextmanager
def _told() -> Iterator[None]:
    """What data modules tell of their files, as how many people they leave out, is what a check is for."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)


def as_record(splits: dict[str, Split], same: dict[str, str], classes: list[str] | None) -> dict[str, Any]:
    """What was found, as plain data: ``splits``, ``unreadable``, ``in_both``."""
    rows = {}
    for name, split in splits.items():
        row: dict[str, Any] = {"num_items": split.num_items, "num_files": len(split.files)}
        if name in same:
            row["same_as"] = same[name]
        row["num_unreadable"] = len(split.unreadable)
        if split.labels:
            counts = {_name(label, classes): number for label, number in sorted(split.labels.items())}
            # a class of which nothing was read is the smallest
            counts = dict.fromkeys(classes or (), 0) | counts
            row["num_classes"] = len(counts)
            for what, pick in (("smallest_class", min), ("largest_class", max)):
                best = pick(counts, key=counts.get)
                row[what] = {"name": best, "num_items": counts[best]}
        if split.num_joints is not None:
            row["num_joints"] = split.num_joints
        rows[name] = row
    unreadable = {file: why for split in splits.values() for file, why in split.unreadable.items()}
    others = [name for name in splits if name != "train" and name not in same and "train" in splits]
    return {
        "splits": rows,
        "unreadable": [{"file": file, "reason": why} for file, why in sorted(unreadable.items())],
        "in_both": [
            {"train": one, name: other} for name in others for one, other in shared_files(splits["train"], splits[name])
        ],
    }


def _name(label: int, classes: list[str] | None) -> str:
    return classes[label] if classes and 0 <= label < len(classes) else str(label)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    console = Console(stderr=True)
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, rate="")

        def advance(number: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=number, rate=f"{speed:.0f}/s" if speed else "")

        yield advance


def _print(record: dict[str, Any]) -> None:
    table = Table(title="Data", title_justify="left")
    for name in ("", "pictures", "files", "unreadable", "classes", "smallest", "largest", "joints"):
        table.add_column(name, justify="left" if name in ("", "smallest", "largest") else "right")
    for name, row in record["splits"].items():
        ends = [row.get(f"{end}_class") for end in ("smallest", "largest")]
        cells = [f"{end['name']} ({end['num_items']:,})" if end else "" for end in ends]
        numbers = [f"{row[key]:,}" if key in row else "" for key in ("num_classes", "num_joints")]
        title = f"{name} (is {row['same_as']})" if "same_as" in row else name
        counts = [f"{row[key]:,}" for key in ("num_items", "num_files", "num_unreadable")]
        table.add_row(title, *counts, numbers[0], *cells, numbers[1])
    print_whole(table)
    lines = [(line["file"], line["reason"]) for line in record["unreadable"]]
    _print_some([why if file in why else f"{file}: {why}" for file, why in lines], sys.stdout)


def _warn(record: dict[str, Any]) -> None:
    pairs = [list(pair.items()) for pair in record["in_both"]]
    if pairs:
        are = "is" if len(pairs) == 1 else "are"
        text = f"{len(pairs)} of the pictures to measure on {are} also trained on, byte for byte"
        print(f"warning: {text}:", file=sys.stderr)
        _print_some([f"{name} {file} is {first} {one}" for (first, one), (name, file) in pairs], sys.stderr)


def _print_some(lines: list[str], stream: Any) -> None:
    for line in lines[:MAX_LINES]:
        print(line, file=stream)
    if len(lines) > MAX_LINES:
        print(f"… and {len(lines) - MAX_LINES} more: --json lists all", file=stream)
