"""`bnnlight predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from bnnlight.commands.checkpoints import check_fits, read_checkpoint
from bnnlight.commands.experiment import Experiment
from bnnlight.commands.parser import Parser
from bnnlight.commands.predict_classes import ClassPredictor
from bnnlight.commands.predict_poses import PosePredictor
from bnnlight.commands.report import write_json
from bnnlight.data.folders import load_rgb
from bnnlight.tasks import PoseTask

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
"""Endings of the files that are taken from a folder."""


def predict(args: list[str]) -> None:
    """Predict classes or poses of image files or folders: a picture of the answer for each, and one JSON for all.

    A pose network looks for the one person that fills the picture: cut out people in larger scenes first.
    """
    parser = Parser(
        prog="bnnlight predict",
        description=predict.__doc__,
        epilog="example: bnnlight predict --ckpt_path RUN/checkpoints/best.ckpt photos/ cat.jpg --output predictions",
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--ckpt_path", required=True, type=Path, help="checkpoint of bnnlight fit")
    parser.add_argument("--config", type=Path, help="config of the run (default: config.yaml of the checkpoint's run)")
    output = "folder to write (default: predictions)"
    parser.add_argument("--output", type=Path, default=Path("predictions"), help=output)
    parser.add_argument("--top", type=int, default=5, help="number of classes to name (default: 5)")
    confidence = "joints of a pose that are less sure are not drawn (default: 0, all are)"
    parser.add_argument("--min_confidence", type=float, default=0.0, metavar="SHARE", help=confidence)
    parser.add_argument("--batch_size", type=int, default=32, help="images per forward pass (default: 32)")
    options = parser.parse_args(args)
    if options.top < 1 or options.batch_size < 1:
        raise ValueError("--top and --batch_size must be at least 1")
    files = find_images(options.images)
    task, transform = load_run(options.ckpt_path, options.config)
    task.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    if isinstance(task, PoseTask):
        predictor = PosePredictor(task, transform, options.min_confidence)
    else:
        predictor = ClassPredictor(task, transform, options.top)
    options.output.mkdir(parents=True, exist_ok=True)
    record, taken = [], set()
    for batch in track(list(_batches(files, options.batch_size)), "predicting"):
        with torch.inference_mode():
            results = predictor([load_rgb(str(file)) for file in batch])
        for file, (found, drawn) in zip(batch, results, strict=True):
            place = options.output / _free_name(file, taken)
            drawn.save(place)
            record.append({"image": str(file), "picture": place.name, **found})
    write_json(options.output / "predictions.json", record)
    print(f"{len(files)} images: {options.output}/predictions.json and a picture for each beside it")


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Files as they are named and, sorted, all image files in and below folders.

    Raises:
        FileNotFoundError: a path does not exist, or a folder has no image in it.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
            if not inside:
                raise FileNotFoundError(f"no images in {path}: looked for {', '.join(SUFFIXES)}")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"no such image or folder: {path}")
    return files


def load_run(checkpoint: Path, config: Path | None) -> tuple[Any, Any]:
    """The task of a checkpoint with its weights and class names, and the transform of its data.

    Args:
        checkpoint: of ``bnnlight fit``, in ``RUN/checkpoints``.
        config: of the run; ``RUN/config.yaml`` by default.

    Raises:
        FileNotFoundError: the checkpoint or its config is missing.
        ValueError: the file is no checkpoint or is of another network, or the config's data module has no
            ``eval_transform``.
    """
    content = read_checkpoint(checkpoint)
    config = config or checkpoint.parent.parent / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"config of the run not found: {config}; name it with --config FILE")
    experiment = Experiment("predict", "", ["--config", str(config)])
    check_fits(content["state_dict"], experiment.model, checkpoint)
    experiment.model.load_state_dict(content["state_dict"])
    experiment.model.on_load_checkpoint(content)
    transform = getattr(experiment.datamodule, "eval_transform", None)
    if transform is None:
        raise ValueError(f"the data module of {config} has no eval_transform to prepare images with")
    return experiment.model, transform


def _batches(files: list[Path], size: int) -> Iterator[list[Path]]:
    for start in range(0, len(files), size):
        yield files[start : start + size]


def _free_name(file: Path, taken: set[str]) -> str:
    """A file name for the picture of this image: pictures of two folders may have one name."""
    name, count = f"{file.stem}.png", 1
    while name in taken:
        count += 1
        name = f"{file.stem}-{count}.png"
    taken.add(name)
    return name
