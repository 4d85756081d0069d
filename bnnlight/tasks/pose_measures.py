"""`PoseMeasures`: what is measured of a pose task's predictions, batch by batch, over all processes."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from bnnlight.imaging.joint_sides import without_side
from bnnlight.imaging.skeletons import Skeleton
from bnnlight.metrics.nme import NME
from bnnlight.metrics.oks import STATS
from bnnlight.metrics.pck import PCK, mean_over_joints, mean_over_visible, pck_correct
from bnnlight.tasks.oks import EpochOKS, measures_oks

MEASURES = {
    "pckh": ("head_px", 0.5),
    "pckh01": ("head_px", 0.1),
    "pck": ("torso_px", 0.2),
    "pck_box": ("box_px", 0.2),
}
"""Name in the log → reference length in the batch, threshold: PCKh@0.5, PCKh@0.1, PCK@0.2, and PCK@0.2 by the box."""

MAX_NAMED = 60
"""Of more joints, left and right counted once, the single ones are not logged."""


class PoseMeasures(nn.Module):
    """PCKh and PCK, NME, average precision by OKS: each where the data have what it needs.

    Args:
        skeleton: of the data.
        data: the data module.
    """

    def __init__(self, skeleton: Skeleton, data: Any) -> None:
        super().__init__()
        self.skeleton = skeleton
        self.pck = nn.ModuleDict({name: PCK(len(skeleton.joints), share) for name, (_, share) in MEASURES.items()})
        self.nme = NME()
        self.oks = EpochOKS() if measures_oks(data, skeleton) else None
        # what no mean counts
        self._counts = [index not in skeleton.excluded for index in range(len(skeleton.joints))]

    def update(self, predictions: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
        """Adds a batch.

        Args:
            predictions: ``joints`` ``(N, J, 2)`` in px of the stored picture, and ``confidence`` ``(N, J)``.
            batch: see :class:`bnnlight.data.keypoints.transforms.PoseTransform`; your own data set may lack
                references.
        """
        found, truth, annotated = predictions["joints"], batch["truth"], batch["annotated"]
        for name, (reference, _) in MEASURES.items():
            if reference in batch:
                self.pck[name].update(found, truth, annotated, batch[reference])
        if "nme_px" in batch:
            counts = torch.tensor(self._counts, device=annotated.device)
            self.nme.update(found, truth, annotated & counts, batch["nme_px"])
        if self.oks:
            self.oks.update(batch["entry"], found, predictions["confidence"])

    def figures(self, split: str, data: Any) -> dict[str, Any]:
        """Figures for all that was added since the last call, by all processes: each has to call it.

        Args:
            split: ``val`` or ``test``.
            data: one with ``oks_truth`` is asked for the annotations of the split; ``shows_part`` tells that people
                were chosen among them, who alone are measured.

        Returns:
            Name in the log, without split → figure; what could not be measured is not there.
        """
        figures: dict[str, Any] = {}
        groups = joint_groups(self.skeleton)
        for name, measure in self.pck.items():
            correct, count = measure.totals()  # of all ranks together: they all log the same
            measure.reset()
            if not count.sum():
                continue
            figures[name] = mean_over_visible(correct, count, self.skeleton.excluded)
            figures[f"{name}_mean"] = mean_over_joints(correct, count, self.skeleton.excluded)
            figures |= {f"{name}_{group}": (correct / count)[indices].nanmean() for group, indices in groups.items()}
        error, count = self.nme.totals()
        self.nme.reset()
        if count:
            figures["nme"] = error / count
        if self.oks:
            shows_part = getattr(data, "shows_part", False)
            measured = self.oks.compute(data.oks_truth(split), self.skeleton, shows_part)
            figures |= {name: figure for name, figure in measured.items() if not math.isnan(figure)}
        return figures


def measured(data: Any, skeleton: Skeleton) -> set[str]:
    """Names that :meth:`PoseMeasures.figures` gives for data."""
    has_boxes = getattr(data, "has_boxes", False)
    names = [
        *(["pck"] if skeleton.torso else []),
        *(["pckh", "pckh01"] if getattr(data, "has_head_sizes", True) else []),
        *(["pck_box"] if has_boxes else []),
    ]
    ends = ["", "_mean", *(f"_{group}" for group in joint_groups(skeleton))]
    others = [*(["nme"] if has_boxes else []), *(STATS if measures_oks(data, skeleton) else [])]
    return {f"{name}{end}" for name in names for end in ends}.union(others)


def marked_correct(predictions: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
    """Joints that a picture does not mark as wrong, ``(N, J)`` bool: by PCKh@0.5 where there is a head, else by
    PCK@0.2, of the torso or else of the box.
    """
    torso_px, box_px = batch["torso_px"], batch.get("box_px", batch["torso_px"])
    reference = 0.2 * torch.where(torso_px > 0, torso_px, box_px)
    reference = torch.where(batch["head_px"] > 0, 0.5 * batch["head_px"], reference)
    return pck_correct(predictions["joints"], batch["truth"], reference, 1.0)


def joint_groups(skeleton: Skeleton) -> dict[str, list[int]]:
    """Joints by their name without left and right; none where there are too many to be looked at one by one."""
    groups: dict[str, list[int]] = {}
    for index, (name, side) in enumerate(zip(skeleton.joints, skeleton.sides, strict=True)):
        # a key's parts are told by "/", and some loggers take letters, digits, "_", "-" and "." alone
        group = re.sub(r"[^\w.-]+", "_", without_side(name) if side else name)
        groups.setdefault(group, []).append(index)
    return groups if len(groups) <= MAX_NAMED else {}
