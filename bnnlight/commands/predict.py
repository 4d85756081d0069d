"""`bnnlight predict`: classes or poses of image files."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from bnnlight.console.parser import Parser
from bnnlight.deploy import Runtime
from bnnlight.deploy.shipped import shipped_models
from bnnlight.imaging.answer_folder import ANSWERS, ERRORS, AnswerFolder, write_answer
from bnnlight.imaging.answers_json import answers, coco_results, with_people
from bnnlight.imaging.boxes import PADDING
from bnnlight.imaging.class_pictures import annotate
from bnnlight.imaging.given_boxes import given_boxes
from bnnlight.imaging.image_files import find_images
from bnnlight.imaging.pose_pictures import DrawnPerson, draw_people
from bnnlight.imaging.reading import as_stored, load_rgb, turned, upright
from bnnlight.imaging.skeletons import Skeleton

BOX_SCORE = 0.5
"""Boxes below it are mostly nobody. Average precision, which weighs them by their score, is measured with all."""

Predictor = Callable[[Sequence[Image.Image], Sequence[np.ndarray] | None], list[dict[str, Any]]]
"""A record of classes, joints or people for each picture; see :meth:`bnnlight.deploy.Runtime.predict`."""


def predict(args: list[str]) -> None:
    """Predict classes or poses for image files or folders: writes a picture of each answer, and one JSON for all.

    A pose network looks for the one person that fills the picture, or for the people in boxes that a detector found;
    weak joints are drawn faintly. Pictures are turned upright as their EXIF tag says. Exit code 1 means that some could
    not be read: each is named on stderr and in errors.json, and the others are predicted.
    """
    options = _parsed(args)
    folder = AnswerFolder(options.output, options.overwrite)
    files = find_images(options.images, folder.earlier)
    folder.keep(files)
    least, skip = options.min_box_score, options.on_missing_image == "skip"
    given = given_boxes(files, options.boxes, options.annotations, least, options.box_category, skip)
    files = given.files
    predictor, skeleton = _predictor(options)
    if skeleton is None and (options.boxes or options.format == "coco"):
        asked = "--boxes" if options.boxes else "--format coco"
        raise ValueError(f"{asked} is for models that find joints: {options.ckpt_path or options.model} names classes")
    given.check(turn=not options.as_stored)
    coco = options.format == "coco"
    if coco:
        given.check_joints(skeleton.joints)
    # of a picture without boxes nothing is written in COCO's form
    needed = [coco and not (options.boxes and not boxes) for boxes in given.boxes]
    image_ids = [given.id_of(index, is_needed) for index, is_needed in enumerate(needed)]
    record: list[dict[str, Any]] = []
    num_images = num_people = 0
    errors: list[dict[str, str]] = []
    with folder.writing() as room:
        for start in track(range(0, len(files), options.batch_size), "predicting"):
            batch = range(start, min(start + options.batch_size, len(files)))
            readable, pictures = _read(files, batch, options, errors)
            boxes = [given.arrays(index) for index in readable] if options.boxes else None
            found = predictor(pictures, boxes) if pictures else []
            for index, picture, answer in zip(readable, pictures, found, strict=True):
                size = turned(picture).size
                entry = {"image": str(files[index])}
                if image_ids[index] is not None:
                    entry["image_id"] = image_ids[index]
                if skeleton:
                    answer = with_people(answer, size, given.told(index) if options.boxes else [])
                if not coco:
                    entry["picture"] = folder.name_for(files[index])
                    draw(picture, answer, skeleton, options.min_confidence).save(room / entry["picture"])
                entry |= {"width": size[0], "height": size[1], **answer}
                # of many thousand people the short form alone is kept
                record += coco_results([entry]) if coco else [entry]
                num_images, num_people = num_images + 1, num_people + len(answer.get("people", ()))
        if not num_images:
            raise OSError(f"none of the {len(files)} images can be read, the first: {errors[0]['error']}")
        write_answer(room, record if coco else answers(record, skeleton), errors)
    given.tell()
    images = "1 image" if num_images == 1 else f"{num_images} images"
    if options.boxes:
        images += ", 1 person" if num_people == 1 else f", {num_people} people"
    beside = "" if coco else " and a picture for each beside it"
    print(f"{images}: {options.output}/{ANSWERS}{beside}")
    if errors:
        raise OSError(
            f"{len(errors)} of {len(files)} images could not be read and were left out: "
            f"{options.output}/{ERRORS} names them"
        )


def _parsed(args: list[str]) -> Namespace:
    parser = Parser(
        prog="bnnlight predict",
        description=predict.__doc__,
        epilog="examples: bnnlight predict --model cifar10 photos/ cat.jpg --output predictions; "
        "bnnlight predict --model lsp photos/ --boxes detections.json --annotations val.json",
    )
    text = "image files, or folders of them; what is transparent is put on white"
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=text)
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
    text = "json: pictures of the answers, and JSON as in docs/predictions.md (the default); coco: COCO's results "
    text += "form of keypoints, which pycocotools evaluates, and no pictures"
    parser.add_argument("--format", choices=("json", "coco"), default="json", help=text)
    text = "replace earlier predictions in the folder; other files in it stay"
    parser.add_argument("--overwrite", action="store_true", help=text)
    text = "skip: name an unreadable image and go on (the default); stop: end there, and write nothing"
    parser.add_argument("--on_bad_image", choices=("skip", "stop"), default="skip", help=text)
    parser.add_argument("--as_stored", action="store_true", help="ignore the EXIF tag: boxes count stored pixels")
    parser.add_argument("--top", type=int, default=5, help="number of classes to name (default: 5)")
    confidence = "joints of a pose with less confidence are not drawn (default: 0, all are drawn, weak ones faintly)"
    parser.add_argument("--min_confidence", type=float, default=0.0, metavar="SHARE", help=confidence)
    parser.add_argument("--batch_size", type=int, default=32, help="images, or boxes, per forward pass (default: 32)")
    threads = "CPU threads that the network computes with (default: one per image; with a checkpoint, torch's choice)"
    parser.add_argument("--num_threads", type=int, help=threads)
    people = parser.add_argument_group("people in boxes", "px; (0, 0) is the middle of the top left pixel")
    text = "boxes of people: a JSON file in COCO's detection form, a list of {image_id or file_name, bbox, score, "
    text += "category_id}; or x,y,w,h in one picture (several times; --boxes=-5,0,90,99 where x is below 0)"
    people.add_argument("--boxes", action="append", metavar="FILE", help=text)
    text = "JSON file in COCO's form whose images give the file of an image_id (default: the file's name is the id); "
    text += "with --format coco its joints must be the model's"
    people.add_argument("--annotations", type=Path, metavar="FILE", help=text)
    text = f"leave out boxes with a lower score (default: {BOX_SCORE}; 0 with --format coco, where all count)"
    people.add_argument("--min_box_score", type=float, metavar="SCORE", help=text)
    text = "category_id of the boxes to use, several separated by commas, or all; needed where the file has several"
    people.add_argument("--box_category", metavar="ID", help=text)
    text = f"side of the square to cut out, divided by the box's longer side (default: as in training, else {PADDING})"
    people.add_argument("--box_padding", type=float, metavar="FACTOR", help=text)
    text = "stop: boxes of other pictures are an error (the default); skip: leave them out"
    people.add_argument("--on_missing_image", choices=("stop", "skip"), default="stop", help=text)
    options = parser.parse_args(args)
    _check(options)
    if options.min_box_score is None:
        options.min_box_score = 0.0 if options.format == "coco" else BOX_SCORE
    return options


def _check(options: Namespace) -> None:
    for name in ("top", "batch_size", "num_threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}: give at least 1")
    if not 0 <= options.min_confidence <= 1:
        raise ValueError(f"--min_confidence is {options.min_confidence:g}: give a number from 0 to 1")
    if options.box_padding is not None and not 0 < options.box_padding < np.inf:
        raise ValueError(f"--box_padding is {options.box_padding:g}: give a factor above 0, such as {PADDING}")
    if options.min_box_score is not None and not np.isfinite(options.min_box_score):
        raise ValueError(f"--min_box_score is {options.min_box_score:g}: give a number, such as {BOX_SCORE}")
    for name in ("box_padding", "min_box_score", "box_category"):
        if getattr(options, name) is not None and not options.boxes:
            raise ValueError(f"--{name} needs --boxes: without boxes each picture is looked at as a whole")


def _read(
    files: Sequence[Path], batch: Sequence[int], options: Namespace, errors: list[dict[str, str]]
) -> tuple[list[int], list[Image.Image]]:
    """Which files can be read, and their pictures. The others are named on stderr and added to the errors.

    Raises:
        OSError: a file cannot be read and is not to be skipped, or it is not the file that is at fault.
    """
    readable, pictures = [], []
    for index in batch:
        try:
            picture = load_rgb(files[index])
        except OSError as error:
            if options.on_bad_image == "stop" or error.errno is not None:
                raise
            print(f"left out: {error}", file=sys.stderr, flush=True)
            errors.append({"image": str(files[index]), "error": str(error)})
        else:
            readable.append(index)
            pictures.append(as_stored(picture) if options.as_stored else picture)
    return readable, pictures


def draw(picture: Image.Image, answer: dict[str, Any], skeleton: Skeleton | None, min_confidence: float) -> Image.Image:
    """The picture with people's joints on it, or with its classes below it.

    Args:
        picture: as it was handed to the predictor.
        answer: its record.
        skeleton: of the joints; None for classes.
        min_confidence: joints below it are not drawn.
    """
    if skeleton is None:
        lines = [f"{100 * c['probability']:.1f} %  {c['class']}" for c in answer["classes"]]
        return annotate(turned(picture), lines)
    people = []
    for person in sorted(answer["people"], key=lambda person: person["score"]):
        joints = np.array([[joint["x"], joint["y"]] for joint in person["joints"]])
        sure = np.array([joint["confidence"] for joint in person["joints"]])
        people.append(DrawnPerson(joints, sure, sure >= min_confidence, max(person["box"][2:])))
    return Image.fromarray(draw_people(upright(picture), people, skeleton))


def _predictor(options: Namespace) -> tuple[Predictor, Skeleton | None]:
    checkpoint = options.ckpt_path or (Path(options.model) if options.model.endswith(".ckpt") else None)
    told = options.top, options.batch_size
    if checkpoint:
        if not checkpoint.is_file():
            raise FileNotFoundError(f"checkpoint not found: {checkpoint}")
        # imported late: a shipped model is run without torch and Lightning
        from bnnlight.experiment.trained.predictor import predictor_of

        return predictor_of(checkpoint, options.config, *told, options.num_threads, options.box_padding)
    if options.config:
        raise ValueError("--config is for checkpoints: an exported model needs none")
    runtime = Runtime(options.model, options.num_threads)
    return (lambda *given: runtime.predict(given[0], *told, given[1], options.box_padding)), runtime.manifest.skeleton
