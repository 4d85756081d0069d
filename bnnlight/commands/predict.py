"""`bnnlight predict`: classes or poses of image files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from bnnlight.console.parser import Parser
from bnnlight.deploy import Runtime
from bnnlight.deploy.shipped import shipped_models
from bnnlight.imaging.answer_folder import ANSWERS, ERRORS, AnswerFolder, write_answer
from bnnlight.imaging.class_pictures import annotate
from bnnlight.imaging.pose_pictures import draw_pose
from bnnlight.imaging.reading import load_rgb, turned, upright
from bnnlight.imaging.skeletons import Skeleton

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
"""Endings of the files that are taken from a folder."""

Predictor = Callable[[Sequence[Image.Image]], list[dict[str, Any]]]
"""A record of classes or joints for each picture; see :meth:`bnnlight.deploy.Runtime.predict`."""


def predict(args: list[str]) -> None:
    """Predict classes or poses of image files or folders: a picture of the answer for each, and one JSON for all.

    A pose network looks for the one person that fills the picture: cut out people in larger scenes first. Pictures are
    turned upright as their EXIF tag says. Exit code 1 tells that some could not be read: each is named on stderr and in
    errors.json, and the others are answered.
    """
    parser = Parser(
        prog="bnnlight predict",
        description=predict.__doc__,
        epilog="example: bnnlight predict --model cifar10 photos/ cat.jpg --output predictions",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them")
    trained = parser.add_mutually_exclusive_group(required=True)
    names = ", ".join(shipped_models()) or "none"
    model = (
        f"exported model, its folder or its file; one that comes with bnnlight ({names}); hf://OWNER/NAME, one on the "
        "Hugging Face Hub; or RUN/checkpoints/NAME.ckpt"
    )
    trained.add_argument("--model", help=model)
    trained.add_argument("--ckpt_path", type=Path, help="checkpoint of bnnlight fit, whatever the file's name")
    parser.add_argument("--config", type=Path, help="config of the run (default: config.yaml of the checkpoint's run)")
    output = "folder to write (default: predictions)"
    parser.add_argument("--output", type=Path, default=Path("predictions"), help=output)
    text = "replace an earlier answer that is in the folder; other files in it stay"
    parser.add_argument("--overwrite", action="store_true", help=text)
    text = "skip: name an unreadable image and go on (the default); stop: end there, and write nothing"
    parser.add_argument("--on_bad_image", choices=("skip", "stop"), default="skip", help=text)
    parser.add_argument("--top", type=int, default=5, help="number of classes to name (default: 5)")
    confidence = "joints of a pose that are less sure are not drawn (default: 0, all are)"
    parser.add_argument("--min_confidence", type=float, default=0.0, metavar="SHARE", help=confidence)
    parser.add_argument("--batch_size", type=int, default=32, help="images per forward pass (default: 32)")
    threads = "CPU threads that the network computes with (default: one an image; with a checkpoint, torch's choice)"
    parser.add_argument("--num_threads", type=int, help=threads)
    options = parser.parse_args(args)
    for name in ("top", "batch_size", "num_threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}: give at least 1")
    if not 0 <= options.min_confidence <= 1:
        raise ValueError(f"--min_confidence is {options.min_confidence:g}: give a number from 0 to 1")
    folder = AnswerFolder(options.output, options.overwrite)
    files = find_images(options.images, folder.earlier)
    folder.keep(files)
    checkpoint = options.ckpt_path or (Path(options.model) if options.model.endswith(".ckpt") else None)
    if checkpoint:
        predictor, skeleton = _of_checkpoint(checkpoint, options.config, options.top, options.num_threads)
    elif options.config:
        raise ValueError("--config goes with a checkpoint: an exported model needs none")
    else:
        predictor, skeleton = _of_shipped(options.model, options.top, options.batch_size, options.num_threads)
    record: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    with folder.writing() as room:
        for batch in track(list(_batches(files, options.batch_size)), "predicting"):
            readable, pictures = _read(batch, options.on_bad_image == "skip", errors)
            for file, picture, answer in zip(readable, pictures, predictor(pictures) if pictures else [], strict=True):
                name = folder.name_for(file)
                draw(picture, answer, skeleton, options.min_confidence).save(room / name)
                record.append({"image": str(file), "picture": name, **answer})
        if not record:
            raise OSError(f"none of the {len(files)} images can be read, the first: {errors[0]['error']}")
        write_answer(room, record, errors)
    images = "1 image" if len(record) == 1 else f"{len(record)} images"
    print(f"{images}: {options.output}/{ANSWERS} and a picture for each beside it")
    if errors:
        raise OSError(
            f"{len(errors)} of {len(files)} images could not be read and were left out: "
            f"{options.output}/{ERRORS} names them"
        )


def _read(files: Sequence[Path], skip: bool, errors: list[dict[str, str]]) -> tuple[list[Path], list[Image.Image]]:
    """The files that can be read and their pictures. The others are named on stderr and added to the errors.

    Raises:
        OSError: a file cannot be read and is not to be skipped, or it is not the file that is at fault.
    """
    readable, pictures = [], []
    for file in files:
        try:
            pictures.append(load_rgb(file))
        except OSError as error:
            if not skip or error.errno is not None:
                raise
            print(f"left out: {error}", file=sys.stderr, flush=True)
            errors.append({"image": str(file), "error": str(error)})
        else:
            readable.append(file)
    return readable, pictures


def draw(picture: Image.Image, answer: dict[str, Any], skeleton: Skeleton | None, min_confidence: float) -> Image.Image:
    """The picture with its joints on it, or with its classes below it.

    Args:
        picture: as it was handed to the predictor.
        answer: its record.
        skeleton: of the joints; None for classes.
        min_confidence: joints below it are not drawn.
    """
    if skeleton is None:
        lines = [f"{100 * c['probability']:.1f} %  {c['class']}" for c in answer["classes"]]
        return annotate(turned(picture), lines)
    joints = np.array([[joint["x"], joint["y"]] for joint in answer["joints"]])
    shown = np.array([joint["confidence"] >= min_confidence for joint in answer["joints"]])
    return Image.fromarray(draw_pose(upright(picture), joints, shown, skeleton))


def find_images(paths: Sequence[Path], but: Collection[Path] = ()) -> list[Path]:
    """Files as they are named and, sorted, all image files in and below folders.

    Args:
        paths: files and folders.
        but: files that are not taken from folders.

    Raises:
        FileNotFoundError: a path does not exist, or a folder has no image in it.
    """
    files: list[Path] = []
    left_out = {file.resolve() for file in but}
    for path in paths:
        if path.is_dir():
            candidates = (f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
            inside = sorted(f for f in candidates if f.resolve() not in left_out)
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
    # imported late: a shipped model is run without torch and Lightning
    from bnnlight.experiment.trained.network import load_trained

    experiment = load_trained("predict", checkpoint, config)
    transform = getattr(experiment.datamodule, "eval_transform", None)
    if transform is None:
        raise ValueError(f"the data module of {checkpoint} has no eval_transform to prepare images with")
    return experiment.model, transform


def _of_shipped(model: str, top: int, batch_size: int, num_threads: int | None) -> tuple[Predictor, Skeleton | None]:
    runtime = Runtime(model, num_threads)
    return lambda pictures: runtime.predict(pictures, top, batch_size), runtime.manifest.skeleton


def _of_checkpoint(
    checkpoint: Path, config: Path | None, top: int, num_threads: int | None
) -> tuple[Predictor, Skeleton | None]:
    # imported late: a shipped model is run without torch and Lightning
    import torch

    from bnnlight.experiment.trained.classes import ClassPredictor
    from bnnlight.experiment.trained.poses import PosePredictor
    from bnnlight.tasks import PoseTask

    task, transform = load_run(checkpoint, config)
    if num_threads:
        torch.set_num_threads(num_threads)
    task.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    if isinstance(task, PoseTask):
        return PosePredictor(task, transform), task.skeleton
    return ClassPredictor(task, transform, top), None


def _batches(files: list[Path], size: int) -> Iterator[list[Path]]:
    for start in range(0, len(files), size):
        yield files[start : start + size]
