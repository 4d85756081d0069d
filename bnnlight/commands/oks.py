"""`bnnlight oks`: average precision and recall of stored keypoints against COCO annotations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bnnlight.console.large import large_imports
from bnnlight.console.parser import Parser

_DESCRIPTION = """Average precision and recall of stored keypoints by OKS, as COCO's own code (pycocotools) computes
them. Crowds and people without annotated joints are ignored; in each picture, only the 20 people with the highest
scores count. An annotation without an area gets 0.53 × width × height of its box."""
_ANNOTATIONS = "give a JSON file in COCO's keypoint form"
_RESULTS = (
    "give a JSON list in COCO's results form: image_id, category_id, keypoints (x, y and score of each joint) and "
    "score of each"
)


def oks(args: list[str]) -> None:
    """Print AP and AR of stored predictions as a table or as JSON."""
    parser = Parser(
        prog="bnnlight oks",
        description=_DESCRIPTION,
        epilog="example: bnnlight oks --annotations person_keypoints_val2017.json --predictions results.json",
    )
    text = "JSON file in COCO's keypoint form"
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help=text)
    text = "JSON file in COCO's results form: a list of image_id, category_id, keypoints and score"
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help=text)
    text = (
        "constants of OKS, one per joint: 0.026,0.025,…; or coco for those of COCO's 17 joints, which are the default "
    )
    text += "where the annotations name these joints"
    parser.add_argument("--sigmas", metavar="S,S,…", help=text)
    parser.add_argument("--category", metavar="NAME", help="name or id of the one to measure; all by default")
    parser.add_argument("--json", action="store_true", help="print JSON with all digits")
    options = parser.parse_args(args)
    _check_there(options.annotations, "annotations", _ANNOTATIONS)
    _check_there(options.predictions, "predictions", _RESULTS)
    with large_imports():  # late: help, and a wrong command line, should not wait for torch
        from bnnlight.data.keypoints.coco_files.truth import coco_truth
        from bnnlight.metrics.oks import evaluate_oks

    truth = coco_truth(options.annotations, _ANNOTATIONS, options.category)
    sigmas = chosen_sigmas(options.sigmas, truth, options.annotations)
    results = read_results(options.predictions, truth, options.annotations, len(sigmas))
    try:
        figures = evaluate_oks(truth, results, sigmas)
    except ValueError as error:  # of the annotations: the results have been looked through
        raise ValueError(f"{options.annotations}: {error}") from error
    if options.json:
        files = {"annotations": str(options.annotations), "predictions": str(options.predictions)}
        counts = {"num_annotations": len(truth["annotations"]), "num_predictions": len(results)}
        # JSON has no NaN
        plain = {name: None if math.isnan(figure) else figure for name, figure in figures.items()}
        print(json.dumps(files | counts | {"sigmas": list(sigmas)} | plain, indent=2))
    else:
        _print(figures, truth, results)


def chosen_sigmas(text: str | None, truth: dict[str, Any], annotations: Path) -> tuple[float, ...]:
    """The constants of OKS.

    Args:
        text: as it was typed, numbers with commas or blanks between them, in brackets or not, or ``coco``; None: COCO's
            own if the annotations name its joints.
        truth: the annotations.
        annotations: their file, for messages.

    Raises:
        ValueError: they are not one positive number a joint, or none were given for joints that are not COCO's.
    """
    from bnnlight.data.keypoints.coco_files.skeleton import COCO_SIGMAS, known_sigmas

    num_joints = _num_joints(truth, annotations)
    if text is None:
        for category in truth["categories"]:
            names = category["keypoints"]
            if isinstance(names, list) and known_sigmas(tuple(map(str, names))):
                return COCO_SIGMAS
        raise ValueError(
            f"{annotations}: its {num_joints} joints are not named as COCO's 17, whose sigmas are known: give --sigmas "
            f"with {num_joints} numbers, one per joint, such as COCO's from 0.025 (eyes) to 0.107 (hips)"
        )
    try:
        sigmas = COCO_SIGMAS if text == "coco" else tuple(map(float, text.strip("[]() ").replace(",", " ").split()))
    except ValueError as error:
        raise ValueError(f"--sigmas is {text!r}: give numbers with commas between them, or coco") from error
    if len(sigmas) != num_joints:
        raise ValueError(
            f"--sigmas has {len(sigmas)} numbers, and {annotations} has {num_joints} joints: give one for each"
        )
    if not all(0 < sigma < math.inf for sigma in sigmas):
        raise ValueError(f"--sigmas is {text!r}: give numbers above 0")
    return sigmas


def read_results(path: Path, truth: dict[str, Any], annotations: Path, num_joints: int) -> list[dict[str, Any]]:
    """Predictions in COCO's results form.

    Args:
        path: of the JSON file.
        truth: what they are compared with, of :func:`bnnlight.data.keypoints.coco_files.truth.coco_truth`.
        annotations: file of the truth, for messages.
        num_joints: of the truth.

    Returns:
        ``image_id`` and ``category_id`` as in the truth, ``keypoints`` ``(3 · num_joints,)`` float64, ``score``, and
        ``bbox``, which is empty where there is none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or an entry is wrong; the message names it and says what to do.
    """
    from bnnlight.data.keypoints.coco_files.truth import plain_id

    _check_there(path, "predictions", _RESULTS)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply; {_RESULTS}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it may have been cut off: write it again") from error
    if not isinstance(content, list):
        raise ValueError(f"{path} holds {_kind(content)} where a list belongs; {_RESULTS}")
    if not content:
        raise ValueError(f"{path} is an empty list: there is nothing to measure; {_RESULTS}")
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"]: category["name"] for category in truth["categories"]}
    results = []
    for number, entry in enumerate(content, 1):
        where = f"{path}: entry {number} of {len(content)}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is a {type(entry).__name__}; {_RESULTS}")
        if lacking := [name for name in ("image_id", "keypoints", "score") if entry.get(name) is None]:
            raise ValueError(f"{where} has no {lacking[0]}; {_RESULTS}")
        result = {"image_id": plain_id(entry["image_id"])}
        if result["image_id"] not in images:
            raise ValueError(
                f"{where} has image_id {entry['image_id']!r}, which is not one of the {len(images)} images of "
                f"{annotations}: give the predictions for these images"
            )
        if entry.get("category_id") is not None and categories:
            result["category_id"] = plain_id(entry["category_id"])
            if result["category_id"] not in categories:
                known = ", ".join(f"{key} {name}" for key, name in categories.items())
                raise ValueError(
                    f"{where} has category_id {entry['category_id']!r}, and {annotations} has {known}; correct it"
                )
        elif len(categories) > 1:
            raise ValueError(f"{where} has no category_id, and {annotations} has {len(categories)}: add it")
        result["keypoints"] = _keypoints(entry["keypoints"], num_joints, f"{where}: keypoints", annotations)
        score, box = _numbers(entry["score"], f"{where}: score"), _numbers(entry.get("bbox") or [], f"{where}: bbox")
        if score.ndim or box.shape not in ((0,), (4,)):
            raise ValueError(f"{where}: score is not a number, or bbox not x, y, width and height; correct the entry")
        result |= {"score": float(score), "bbox": box.tolist()}
        results.append(result)
    return results


def _check_there(path: Path, what: str, advice: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{what} not found: looked for {path}; {advice}")


def _keypoints(value: Any, num_joints: int, where: str, annotations: Path) -> np.ndarray:
    numbers = _numbers(value, where, "give each joint a place, found or not")
    if numbers.shape != (3 * num_joints,):
        held = f"{numbers.size} numbers" if numbers.ndim == 1 else "lists within a list"
        raise ValueError(
            f"{where} holds {held} where the {num_joints} joints of {annotations} need {3 * num_joints} in one list: "
            "correct the entry, or give the annotations that it was predicted for"
        )
    return numbers


def _numbers(value: Any, where: str, advice: str = "correct the entry") -> np.ndarray:
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{where} is {str(value)[:40]!r} where numbers belong: {advice}") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{where} has a NaN or infinite number: {advice}")
    return numbers


def _num_joints(truth: dict[str, Any], path: Path) -> int:
    for annotation in truth["annotations"]:
        if "keypoints" in annotation:
            return len(annotation["keypoints"]) // 3
    raise ValueError(f"{path}: none of its {len(truth['annotations'])} annotations has keypoints; {_ANNOTATIONS}")


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        return f"an object with {', '.join(list(map(str, content))[:4]) or 'nothing'}"
    return f"a {type(content).__name__}"


def _print(figures: dict[str, float], truth: dict[str, Any], results: list[dict[str, Any]]) -> None:
    from bnnlight.metrics.oks import STATS

    people, images = len(truth["annotations"]), len(truth["images"])
    table = Table(
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("", no_wrap=True)
    table.add_column("share", justify="right", min_width=8, no_wrap=True)
    for name, title in STATS.items():
        table.add_row(title, "–" if math.isnan(figures[name]) else f"{figures[name]:.4f}")
    console = Console()
    for line in (
        f"OKS: {len(results)} predictions, {people} annotations in {images} images",
        table,
        "AP and AR are means over the thresholds 0.5, 0.55 … 0.95. – stands where there is nobody to be found.",
    ):
        console.print(line, highlight=False, soft_wrap=isinstance(line, str))
