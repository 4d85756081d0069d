"""`bnnlight export`: writes a checkpoint as a model to ship, and compares the two."""

from __future__ import annotations

import json
import math
import os
import shlex
import tempfile
from argparse import ArgumentTypeError, Namespace
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.table import Table

from bnnlight.console.large import large_imports
from bnnlight.console.parser import Parser
from bnnlight.console.tables import print_whole
from bnnlight.deploy.card import Facts, write_card
from bnnlight.deploy.check import Check
from bnnlight.deploy.hub import check_upload, upload

CHECKED = 1000
"""Test pictures that the two are compared on."""
FORMATS = ("packed", "openvino", "onnx", "qonnx", "lce")
"""Each is a module of :mod:`bnnlight.deploy.formats` with ``save_FORMAT`` and, where it runs here, ``FORMAT_signs``;
one that cannot take every program has ``check_FORMAT``."""


def export(args: list[str]) -> None:
    """Write a checkpoint as a model to ship, one bit per binary weight, and compare the two on test pictures."""
    parser = Parser(
        prog="bnnlight export",
        description=export.__doc__,
        epilog="example: bnnlight export --ckpt_path RUN/checkpoints/best.ckpt --format openvino --output model",
    )
    parser.add_argument("--ckpt_path", required=True, type=Path, help="checkpoint of bnnlight fit")
    parser.add_argument("--config", type=Path, help="config of the run (default: config.yaml of the checkpoint's run)")
    text = "packed: safetensors, for torch; openvino: XNOR and popcount on CPUs; onnx: standard operators; "
    text += "qonnx: FPGAs; lce: Larq Compute Engine, for ARM"
    parser.add_argument("--format", required=True, choices=FORMATS, help=text)
    parser.add_argument("--output", type=Path, help="folder to write (default: RUN/export/FORMAT)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is already in the folder")
    text = "type of real layers' weights; all else stays fp32 (default: fp32)"
    parser.add_argument("--real_dtype", choices=("fp32", "fp16"), default="fp32", help=text)
    text = "run real convolutions and linear layers on 8-bit integers (openvino only)"
    parser.add_argument("--int8", action="store_true", help=text)
    text = "test pictures to compare on, spread over the test set: a number, 0 or all (default: 1000; 0 for lce, which "
    text += "runs elsewhere)"
    parser.add_argument("--num_check", type=_count, default=CHECKED, metavar="N", help=text)
    parser.add_argument("--json", action="store_true", help="print what was written and compared as JSON")
    text = "shape of the input, where a data module of your own has no image_format: channels, height and width"
    parser.add_argument("--input_shape", type=_shape, metavar="C,H,W", help=text)
    text = "its channels' mean on the scale 0 to 1, which the data module subtracts: one number, or one per channel"
    parser.add_argument("--mean", type=_numbers, metavar="M,M,M", help=text)
    text = "its channels' standard deviation, by which the data module divides"
    parser.add_argument("--std", type=_numbers, metavar="S,S,S", help=text)
    text = "also upload it to the Hugging Face Hub, replacing an earlier model of that name"
    parser.add_argument("--hub", metavar="OWNER/NAME", help=text)
    parser.add_argument("--private", action="store_true", help="make a new model on the hub private")
    options = parser.parse_args(args)
    if options.private and not options.hub:
        raise ValueError("--private needs --hub OWNER/NAME")
    if options.int8 and (options.format != "openvino" or options.real_dtype != "fp32"):
        raise ValueError("--int8 needs --format openvino, and no --real_dtype fp16")
    output = options.output or options.ckpt_path.resolve().parent.parent / "export" / options.format
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not options.overwrite:
        raise ValueError(f"{output} already exists: choose another --output, or pass --overwrite")
    save, signs, can_take = _format(options.format)
    if signs is None and options.num_check not in (0, CHECKED):
        raise ValueError(
            f"format {options.format} does not run here, so nothing can be compared: leave --num_check out"
        )
    if not options.ckpt_path.is_file():
        raise FileNotFoundError(f"checkpoint not found: {options.ckpt_path}")
    if options.hub:
        check_upload(options.hub)
    with large_imports():  # late: help, and a wrong command line, should not wait for torch
        from bnnlight.deploy.formats.int8 import find_ranges
        from bnnlight.deploy.freezing.freeze import freeze
        from bnnlight.experiment.trained.needs import input_format
        from bnnlight.experiment.trained.network import load_trained
        from bnnlight.experiment.trained.shipping import check_pictures, compare, describe, training_pictures
    experiment = load_trained("export", options.ckpt_path, options.config)
    data = experiment.datamodule
    form = input_format(experiment.model, data, options.input_shape, options.mean, options.std)
    program = freeze(experiment.model.backbone, (form.num_channels, form.image_size, form.image_size))
    if can_take:
        can_take(program)
    try:
        loader = check_pictures(experiment, options.num_check if signs else 0)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no pictures to compare the model with its checkpoint: {error}; export where the training was started, or "
            "pass --num_check 0, which compares nothing"
        ) from error
    manifest = describe(experiment, options.ckpt_path, options.config, form)
    extra = {"ranges": find_ranges(program, training_pictures(experiment))} if options.int8 else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    # made beside its place and moved there when all is well, so that nothing half is left
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as room:
        place = Path(room) / output.resolve().name
        place.mkdir()
        file = save(program, manifest, place, options.real_dtype, **extra)
        exact = options.real_dtype == "fp32" and not options.int8
        check = compare(experiment, file, signs(file), loader, exact, options.json) if loader is not None else None
        sizes = {path.name: path.stat().st_size for path in sorted(place.iterdir())}
        facts = Facts(program.num_binary, program.num_real, sizes, check)
        if check:
            if not options.json:
                print_check(check)
            if wrong := check.failures():
                raise RuntimeError(f"nothing was written, as the model differs from its checkpoint: {'; '.join(wrong)}")
        write_card(place, manifest, facts, options.hub)
        output.mkdir(exist_ok=True)
        for path in sorted(place.iterdir()):
            os.replace(path, output / path.name)
    for old in output.glob("model.*"):
        if old.name not in sizes:
            old.unlink()  # of another format, and of another model than the card's
    page = _upload(output, [*sizes, "README.md"], options) if options.hub else None
    if options.json:
        numbers = {"num_binary": program.num_binary, "num_real": program.num_real, "file_bytes": sizes}
        record = {"output": str(output), "hub": page, **numbers, "check": check.record() if check else None}
        print(json.dumps(record, indent=2))
        return
    if options.format == "openvino":
        _tell_of_slow_layers(output)
    unchecked = "" if check else "; not compared with the checkpoint"
    total = sum(sizes.values())
    print(f"{output}: {', '.join(sizes)} ({total:,} bytes) and README.md, the model card{unchecked}")
    if page:
        print(f"uploaded: {page}; to run it: bnnlight predict --model hf://{options.hub} photos/")


def _upload(output: Path, files: list[str], options: Namespace) -> str:
    try:
        return upload(output, files, options.hub, options.private)
    except (ValueError, OSError) as error:
        again = shlex.join(["hf", "upload", options.hub, str(output)])
        raise OSError(f"{error}; the model lies in {output}, to upload it: {again}") from error


def print_check(check: Check) -> None:
    """Shows a comparison as a table, and below it what is not as it should be."""
    table = Table(title=f"{check.file} beside its checkpoint", title_justify="left", show_header=False)
    for row in check.rows():
        table.add_row(*row)
    print_whole(table)
    if warning := check.warning():
        print(f"warning: {warning}")


def _tell_of_slow_layers(folder: Path) -> None:
    from bnnlight.deploy.formats.openvino import NAME, ON_BITS, OpenVINOEngine

    executed = OpenVINOEngine(folder / NAME).executed()
    slow = [f"{name} ({kind})" for name, kind in executed.items() if not kind.startswith(ON_BITS)]
    if slow:
        print(f"warning: {len(slow)} of {len(executed)} binary layers do not run on bits here: {', '.join(slow)}")


def _format(name: str) -> tuple[Any, Any, Any]:
    try:
        module = import_module(f"bnnlight.deploy.formats.{name}")
    except ModuleNotFoundError as error:
        raise ValueError(f"format {name} needs {error.name}: pip install 'bnnlight[deploy]'") from error
    return tuple(getattr(module, part, None) for part in (f"save_{name}", f"{name}_signs", f"check_{name}"))


def _shape(text: str) -> tuple[int, ...]:
    parts = text.strip("[]() ").replace(" ", "").split(",")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ArgumentTypeError(f"{text!r} is not a shape: give channels, height and width, as in 3,64,64")
    return tuple(map(int, parts))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.strip("[]() ").split(",")))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ArgumentTypeError(f"{text!r} are not numbers: give one, or one per channel, separated by commas")
    return numbers


def _count(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a number of pictures: give 0 or more, or all")
    return int(text)
