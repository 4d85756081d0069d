"""`bnnlight pckh`: PCKh of stored predictions against MPII's ground truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from bnnlight.console.large import large_imports
from bnnlight.console.parser import Parser
from bnnlight.imaging.skeletons import MPII

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLDS = (0.5, 0.1)
"""Shares of the head size that a joint may lie off its place."""

GROUPS = {
    "Head": ("head top",),
    "Sho.": ("right shoulder", "left shoulder"),
    "Elb.": ("right elbow", "left elbow"),
    "Wri.": ("right wrist", "left wrist"),
    "Hip": ("right hip", "left hip"),
    "Knee": ("right knee", "left knee"),
    "Ank.": ("right ankle", "left ankle"),
}
"""Columns of the customary table. A pair's figure is the plain mean of left and right, as pytorch-pose and mmpose
take it."""

_NAMES_IN_FILE = (
    *("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor"),
    *("neck", "head", "rwri", "relb", "rsho", "lsho", "lelb", "lwri"),
)
"""What ``dataset_joints`` calls the joints of :data:`bnnlight.imaging.skeletons.MPII`, in its order."""

_JOINTS = len(MPII.joints)
_DESCRIPTION = """PCKh of stored predictions against MPII's ground truth, in percent: the share of joints that lie
within 0.5 (and 0.1) times the head size of their true place, counting those at exactly that distance. The head size
is 0.6 × the diagonal of the head box. Two means are in use and both are given, without pelvis and thorax: the plain
mean of the 14 joints' rates (pytorch-pose), and the share of right joints among all annotated ones, called visible
(mmpose, the MPII site). Coordinates are taken as they are stored: both files 1-based, as MPII has them. Add 1 to
0-based predictions before storing them."""


@dataclass(frozen=True)
class GroundTruth:
    """MPII's annotations of N people, in the order of its predictions.

    Attributes:
        joints: ``(N, 16, 2)`` float64, x and y in px, 1-based; any number where not annotated.
        annotated: ``(N, 16)`` bool.
        head_px: ``(N,)`` float64, the reference length of PCKh, above 0.
    """

    joints: Tensor
    annotated: Tensor
    head_px: Tensor


def pckh(args: list[str]) -> None:
    """Print PCKh of stored predictions as a table or as JSON."""
    parser = Parser(
        prog="bnnlight pckh",
        description=_DESCRIPTION,
        epilog="example: bnnlight pckh --json predictions.mat gt_valid.mat",
    )
    predictions = "MATLAB file (-v7 or older) with the field preds, N×16×2: people, joints in MPII's order, x and y"
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help=predictions)
    truth = "MATLAB file with the fields pos_gt_src 16×2×N, headboxes_src 2×2×N, jnt_missing 16×N and dataset_joints"
    parser.add_argument("ground_truth", type=Path, metavar="GT", help=f"{truth}, such as gt_valid.mat")
    parser.add_argument("--json", action="store_true", help="print JSON with every joint and all digits, in percent")
    options = parser.parse_args(args)
    for path in (options.ground_truth, options.predictions):
        _check_there(path)
    with large_imports():  # late: help, and a wrong command line, should not wait for torch
        import bnnlight.metrics  # noqa: F401
    truth = read_ground_truth(options.ground_truth)
    record = measure(read_predictions(options.predictions, len(truth.joints), options.ground_truth), truth)
    if options.json:
        files = {"predictions": str(options.predictions), "ground_truth": str(options.ground_truth)}
        print(json.dumps(files | record, indent=2))
    else:
        _print(record)


def read_predictions(path: Path, num_people: int, truth_path: Path) -> Tensor:
    """Predictions as MPII's tools store them.

    Args:
        path: of a MATLAB file with the field ``preds``.
        num_people: of the ground truth.
        truth_path: where that was read from, for the message.

    Returns:
        ``(N, 16, 2)`` float64, as stored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file; the message names the field and what is wanted.
    """
    preds = _numbers(_load(path), "preds", path)
    if preds.ndim != 3 or preds.shape[1:] != (_JOINTS, 2):
        hint = ""
        if preds.ndim == 3 and preds.shape[2] == 2 and preds.shape[1] != 2:
            hint = f": these are {preds.shape[1]} joints, expected are MPII's 16"
        elif sorted(preds.shape) == sorted((num_people, _JOINTS, 2)):
            hint = ": the axes have to be reordered"
        raise _wrong_shape(path, "preds", preds, f"N×{_JOINTS}×2 (people, joints, x and y)", hint)
    if len(preds) != num_people:
        raise ValueError(f"{path}: preds has {len(preds)} people, {truth_path} has {num_people}: they must be the same")
    _check_finite(path, "preds", np.isfinite(preds).all(2), "a joint that was not found needs some number too")
    import torch

    return torch.from_numpy(preds)


def read_ground_truth(path: Path) -> GroundTruth:
    """Annotations in the form of MPII's ``gt_valid.mat``.

    Args:
        path: of a MATLAB file with ``pos_gt_src`` 16×2×N, ``headboxes_src`` 2×2×N, ``jnt_missing`` 16×N and
            ``dataset_joints``, 16 names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file; the message names the field and what is wanted.
    """
    import torch

    from bnnlight.metrics import head_size_px

    fields = _load(path)
    # all four are looked for first: who hands over the wrong file should hear that
    positions, boxes, missing = (_numbers(fields, n, path) for n in ("pos_gt_src", "headboxes_src", "jnt_missing"))
    names = [str(np.squeeze(cell)).strip() for cell in np.ravel(_field(fields, "dataset_joints", path))]
    if names != list(_NAMES_IN_FILE):
        raise ValueError(f"{path}: dataset_joints is {', '.join(names)}: expected {', '.join(_NAMES_IN_FILE)}")
    # MATLAB drops a last axis of length 1, that of a single person
    positions, boxes = (a[..., np.newaxis] if a.ndim == 2 else a for a in (positions, boxes))
    num_people = positions.shape[-1]
    people = "" if num_people == 0 else f", N = {num_people} as in pos_gt_src"
    for name, array, lead, axes in (
        ("pos_gt_src", positions, (_JOINTS, 2), "joints, x and y, people"),
        ("headboxes_src", boxes, (2, 2), f"corners, x and y, people{people}"),
        ("jnt_missing", missing, (_JOINTS,), f"joints, people{people}"),
    ):
        if array.shape != (*lead, num_people):
            raise _wrong_shape(path, name, array, f"{'×'.join(map(str, lead))}×N ({axes})")
    if num_people == 0:
        raise ValueError(f"{path}: pos_gt_src has no people")
    annotated = missing.T == 0
    joints = np.ascontiguousarray(positions.transpose(2, 0, 1))
    _check_finite(path, "pos_gt_src", np.isfinite(joints).all(2) | ~annotated, "set it in jnt_missing")
    head_px = head_size_px(torch.from_numpy(np.ascontiguousarray(boxes.transpose(2, 0, 1))))
    bad = torch.nonzero(~(torch.isfinite(head_px) & (head_px > 0)))
    if len(bad):
        raise ValueError(
            f"{path}: headboxes_src has a head of size {float(head_px[bad[0]])} at entry {int(bad[0])} of N (counted "
            "from 0): leave that person out of both files"
        )
    return GroundTruth(torch.from_numpy(joints), torch.from_numpy(annotated), head_px)


def measure(predictions: Tensor, truth: GroundTruth) -> dict[str, Any]:
    """PCKh at every threshold.

    Args:
        predictions: ``(N, 16, 2)`` float64, in the frame of the truth.

    Returns:
        ``num_people``; ``num_joints``, annotated ones without pelvis and thorax; ``count``, joint → how often it
        is annotated; and ``PCKh@0.5``, ``PCKh@0.1``, each with ``joints`` (16 names), ``groups`` (7 columns of the
        table), ``mean_over_joints`` and ``mean_over_visible``, in percent; None where nothing is annotated.
    """
    from bnnlight.metrics import PCK, mean_over_joints, mean_over_visible

    record: dict[str, Any] = {"num_people": len(predictions)}
    for threshold in THRESHOLDS:
        metric = PCK(_JOINTS, threshold)
        metric.update(predictions, truth.joints, truth.annotated, truth.head_px)
        # in float64, so that the rates are too
        correct, count = (t.double() for t in metric.totals())
        groups = {name: [MPII.joints.index(joint) for joint in pair] for name, pair in GROUPS.items()}
        record["num_joints"] = sum(int(n) for joint, n in enumerate(count) if joint not in MPII.excluded)
        record["count"] = dict(zip(MPII.joints, map(int, count), strict=True))
        record[f"PCKh@{threshold}"] = {
            "joints": dict(zip(MPII.joints, map(_percent, correct / count), strict=True)),
            "groups": {name: _percent(mean_over_joints(correct[pair], count[pair])) for name, pair in groups.items()},
            "mean_over_joints": _percent(mean_over_joints(correct, count, MPII.excluded)),
            "mean_over_visible": _percent(mean_over_visible(correct, count, MPII.excluded)),
        }
    return record


def _percent(share: Tensor) -> float | None:
    # JSON has no NaN
    return None if share.isnan() else 100 * float(share)


def _print(record: dict[str, Any]) -> None:
    table = Table(
        title=f"PCKh in percent: {record['num_people']} people, {record['num_joints']} visible joints",
        title_justify="left",
        # no lines between the columns: with them, ten columns do not fit a page of 80 characters
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("", no_wrap=True)
    for name in GROUPS:
        table.add_column(f"\n{name}", justify="right", min_width=6, no_wrap=True)
    for title in ("mean\nof 14", "mean\nvisible"):
        table.add_column(title, justify="right", min_width=8, no_wrap=True)
    for threshold in THRESHOLDS:
        figures = record[f"PCKh@{threshold}"]
        means = [figures["mean_over_joints"], figures["mean_over_visible"]]
        cells = [_digits(n, 2) for n in figures["groups"].values()] + [_digits(n, 3) for n in means]
        table.add_row(f"PCKh@{threshold}", *cells)
    console = Console()
    console.print(table)
    for line in (
        "mean of 14    plain mean of the 14 joints' rates, as pytorch-pose has it",
        "mean visible  over all visible joints, as mmpose and the MPII site have it",
        "Pelvis and thorax are left out. Each joint and exact figures: --json.",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _digits(percent: float | None, digits: int) -> str:
    return "–" if percent is None else f"{percent:.{digits}f}"


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")


def _load(path: Path) -> dict[str, Any]:
    """The fields of a MATLAB file, without MATLAB's own notes."""
    import scipy.io

    _check_there(path)
    try:
        content = scipy.io.loadmat(path, appendmat=False)
    except NotImplementedError as error:
        raise ValueError(f"{path} is in MATLAB's v7.3 format (HDF5): save it again with save(…, '-v7')") from error
    except PermissionError:
        raise
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        raise ValueError(f"{path} is not a MATLAB file (.mat), or is damaged") from error
    return {name: value for name, value in content.items() if not name.startswith("__")}


def _field(fields: dict[str, Any], name: str, path: Path) -> Any:
    if name not in fields:
        raise ValueError(f"{path} has no field {name}: it has {', '.join(sorted(fields)) or 'none'}")
    return fields[name]


def _numbers(fields: dict[str, Any], name: str, path: Path) -> np.ndarray:
    array = _field(fields, name, path)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {name} is not a plain array of real numbers")
    # float64 before anything is subtracted: differences of unsigned integers would wrap round
    return array.astype(np.float64)


def _wrong_shape(path: Path, name: str, array: np.ndarray, expected: str, hint: str = "") -> ValueError:
    return ValueError(f"{path}: {name} is {'×'.join(map(str, array.shape))}, expected {expected}{hint}")


def _check_finite(path: Path, name: str, good: np.ndarray, advice: str) -> None:
    """Names the first person and joint that is not good; ``good`` is ``(N, 16)``."""
    if not good.all():
        person, joint = np.argwhere(~good)[0]
        what = f"at entry {person} of N (counted from 0), {MPII.joints[joint]}"
        raise ValueError(f"{path}: {name} has a NaN or infinite coordinate {what}: {advice}")
