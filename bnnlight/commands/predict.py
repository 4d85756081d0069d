"""`bnnlight predict`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import ArgumentError
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track
from torch import Tensor

from bnnlight.commands.checkpoints import check_fits, read_checkpoint
from bnnlight.commands.experiment import Experiment
from bnnlight.commands.report import write_json
from bnnlight.data.folders import load_rgb

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
"""Endings of the files that are taken from a folder."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ArgumentError(None, message)


def predict(args: list[str]) -> None:
    """Classify image files or folders: one picture with the top classes for each, and one JSON for all."""
    parser = _Parser(
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
    parser.add_argument("--batch_size", type=int, default=32, help="images per forward pass (default: 32)")
    options = parser.parse_args(args)
    if options.top < 1 or options.batch_size < 1:
        raise ValueError("--top and --batch_size must be at least 1")
    files = find_images(options.images)
    task, transform = load_run(options.ckpt_path, options.config)
    names = task.class_names
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task.to(device).eval()
    options.output.mkdir(parents=True, exist_ok=True)
    record, taken = [], set()
    for batch in track(list(_batches(files, options.batch_size)), "predicting"):
        pictures = [load_rgb(str(file)) for file in batch]
        with torch.inference_mode():
            inputs = torch.stack([transform(picture) for picture in pictures]).to(device)
            probabilities = task.predict_step(inputs, 0).cpu()
        for file, picture, row in zip(batch, pictures, probabilities, strict=True):
            best = top_classes(row, names, options.top)
            place = options.output / _free_name(file, taken)
            annotate(picture, [f"{100 * c['probability']:.1f} %  {c['class']}" for c in best]).save(place)
            record.append({"image": str(file), "picture": place.name, "classes": best})
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


def top_classes(probabilities: Tensor, names: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The most probable classes, best first.

    Args:
        probabilities: ``(classes,)``.
        names: of the classes; without them, their indices.
        count: how many, at most all.
    """
    best = probabilities.topk(min(count, len(probabilities)))
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [{"class": names[i] if i < len(names) else str(i), "probability": p} for p, i in pairs]


def annotate(picture: Image.Image, lines: Sequence[str], width_px: int = 480) -> Image.Image:
    """The picture, enlarged to a readable size, with lines of text below it."""
    scale = width_px / picture.width
    height = max(1, round(picture.height * scale))
    # small pictures are enlarged in blocks: blurred digits tell less than sharp ones
    enlarged = picture.resize((width_px, height), Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BILINEAR)
    line_height = 24
    sheet = Image.new("RGB", (width_px, height + line_height * len(lines) + 12), "white")
    sheet.paste(enlarged)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for index, line in enumerate(lines):
        draw.text((8, height + 6 + index * line_height), line, fill="black" if index == 0 else "dimgray", font=font)
    return sheet


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
