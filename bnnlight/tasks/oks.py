"""`EpochOKS`: average precision of a validation's people, of all processes together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from bnnlight.imaging.boxes import pose_score
from bnnlight.imaging.skeletons import Skeleton
from bnnlight.metrics.oks import evaluate_oks


def measures_oks(data: Any, skeleton: Skeleton) -> bool:
    """Whether data have what OKS needs: annotations to measure against, and a sigma for each joint."""
    return hasattr(data, "oks_truth") and len(skeleton.sigmas) == len(skeleton.joints)


def tell_how_to_measure_oks(data: Any, skeleton: Skeleton) -> None:
    """Says how to give sigmas where nothing else is missing."""
    if hasattr(data, "oks_truth") and not skeleton.sigmas:
        rank_zero_info(
            "val/ap is not measured, since OKS needs to know how exactly each joint can be annotated: set data.sigmas "
            f"to {len(skeleton.joints)} numbers, one per joint, such as COCO's from 0.025 (eyes) to 0.107 (hips)"
        )


class EpochOKS:
    """Collects the people of an epoch and measures them by OKS at its end.

    People are told apart by their place in the annotation file, so one whom a sampler shows to two processes
    counts once. Images from which nobody was shown, since they cannot be read or ``limit_val_batches`` leaves them out,
    are not measured on.
    """

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, entries: Tensor, joints: Tensor, confidence: Tensor) -> None:
        """Adds a batch.

        Args:
            entries: ``(N,)`` int64, ids of the people's annotations.
            joints: ``(N, J, 2)``, px of the stored picture.
            confidence: ``(N, J)``, in [0, 1].
        """
        self._batches.append((entries, joints.detach(), confidence.detach()))

    def compute(self, truth: dict[str, Any], skeleton: Skeleton, of_shown: bool = False) -> dict[str, float]:
        """Measures what was added since the last call, and starts over; every process has to call it.

        Args:
            truth: in COCO's form, annotations by ``id``.
            skeleton: with sigmas.
            of_shown: leaves out whom nobody was shown, where people are a sample of all; else they count as missed.

        Returns:
            As :func:`bnnlight.metrics.oks.evaluate_oks`, the same on all processes; nothing where nobody was added.
        """
        share = [torch.cat(parts).cpu().numpy() for parts in zip(*self._batches, strict=True)]
        self._batches = []
        people = {}
        for one in _of_all_processes(share):
            people |= {int(entry): found for entry, *found in zip(*one, strict=True)}
        if not people:
            return {}
        annotations = {entry["id"]: entry for entry in truth["annotations"]}
        if of_shown:
            left = [entry for name, entry in annotations.items() if name in people or entry.get("iscrowd")]
            truth = truth | {"annotations": left}
        # in the file's order, which decides between equal scores: the same however the people were dealt out
        results = [_result(annotations[entry], *people[entry]) for entry in sorted(people)]
        shown = {result["image_id"] for result in results}
        return evaluate_oks(truth, results, skeleton.sigmas, shown)


def _result(annotation: dict[str, Any], joints: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    points = np.column_stack((joints, np.ones(len(joints)))).ravel()
    category = {name: annotation[name] for name in ("category_id",) if name in annotation}
    return {
        "image_id": annotation["image_id"],
        **category,
        "keypoints": points,
        "score": pose_score(confidence.tolist()),
    }


def _of_all_processes(share: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Each process's share, which may be of any length; empty for one without a batch."""
    shares = [share]
    if dist.is_available() and dist.is_initialized():
        shares = [[]] * dist.get_world_size()
        dist.all_gather_object(shares, share)
    return [one for one in shares if one]
