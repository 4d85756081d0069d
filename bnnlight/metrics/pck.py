"""PCK and PCKh: the share of joints found within a given fraction of a reference length of the person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def head_size_px(head_boxes: Tensor) -> Tensor:
    """The reference length of PCKh: 0.6 × the diagonal of the head box.

    Args:
        head_boxes: ``(N, 2, 2)``, two opposite corners, each x, y; or ``(N, 4)``: x1, y1, x2, y2. Floating point, px.

    Returns:
        ``(N,)``, px.

    Raises:
        ValueError: of another shape.
    """
    if head_boxes.shape[1:] not in ((2, 2), (4,)):
        raise ValueError(f"head boxes are {tuple(head_boxes.shape)}: expected (N, 2, 2) or (N, 4)")
    first, second = head_boxes.reshape(-1, 2, 2).unbind(1)
    return 0.6 * torch.linalg.vector_norm(second - first, dim=-1)


def pck_correct(predictions: Tensor, truth: Tensor, reference_px: Tensor, threshold: float) -> Tensor:
    """Whether each joint lies within ``threshold`` × reference of its place; at exactly that distance it does.

    Args:
        predictions, truth: ``(N, J, 2)``, x and y in px of one frame. Floating point.
        reference_px: ``(N,)``, each person's reference length.
        threshold: share of the reference length.

    Returns:
        ``(N, J)`` bool; False where a coordinate or the reference is NaN.

    Raises:
        ValueError: the shapes do not fit together.
    """
    # checked, since a reference of (N, 1) or one person too few would be broadcast to a wrong answer in silence
    if predictions.ndim != 3 or predictions.shape[-1] != 2 or truth.shape != predictions.shape:
        shapes = f"{tuple(predictions.shape)} and {tuple(truth.shape)}"
        raise ValueError(f"predictions and truth are {shapes}: expected one shape (N, J, 2)")
    if reference_px.shape != predictions.shape[:1]:
        shape = tuple(predictions.shape[:1])
        raise ValueError(f"reference lengths are {tuple(reference_px.shape)}: expected {shape}, one for each person")
    distance_px = torch.linalg.vector_norm(predictions - truth, dim=-1)
    return distance_px <= (threshold * reference_px).unsqueeze(1)


def mean_over_visible(correct: Tensor, count: Tensor, excluded: Sequence[int] = ()) -> Tensor:
    """Share of right joints among all annotated ones, each counting once: the mean of mmpose and the MPII site.

    Args:
        correct, count: ``(J,)``, for each joint, how often it was right and how often it was annotated. Integers
            give the default floating-point type, float64 gives float64.
        excluded: indices of joints to leave out; for MPII pelvis and thorax, 6 and 7.

    Returns:
        ``()`` in [0, 1]; NaN where nothing was annotated.
    """
    included = _included(count, excluded)
    return correct[included].sum() / count[included].sum()


def mean_over_joints(correct: Tensor, count: Tensor, excluded: Sequence[int] = ()) -> Tensor:
    """Plain mean of the joints' rates, each joint counting once: the mean of pytorch-pose.

    Args:
        correct, count, excluded: as in :func:`mean_over_visible`.

    Returns:
        ``()`` in [0, 1], over the joints that were annotated at all; NaN without any.
    """
    included = _included(count, excluded) & (count > 0)
    return (correct[included] / count[included]).mean()


def _included(count: Tensor, excluded: Sequence[int]) -> Tensor:
    included = torch.ones_like(count, dtype=torch.bool)
    included[list(excluded)] = False
    return included


class PCK(Metric):
    """Each joint's share of right predictions, over batches and processes.

    With head sizes for reference (:func:`head_size_px`) it is PCKh. The two means that are in use take what
    :meth:`totals` returns.

    Args:
        num_joints: J.
        threshold: share of the reference length.

    Attributes:
        correct, count: ``(J,)`` int64, for each joint, how often it was right and how often it counted; those of
            this process alone.

    Raises:
        ValueError: no joints, or a threshold that is not above 0.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    count: Tensor

    def __init__(self, num_joints: int, threshold: float, **options: Any) -> None:
        super().__init__(**options)
        if num_joints < 1 or not threshold > 0:
            raise ValueError(f"num_joints is {num_joints} and threshold {threshold}: both must be above 0")
        self.num_joints, self.threshold = num_joints, threshold
        for name in ("correct", "count"):
            self.add_state(name, torch.zeros(num_joints, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, truth: Tensor, annotated: Tensor, reference_px: Tensor) -> None:
        """Adds a batch. A joint counts where it is annotated and the person's reference is finite and above 0.

        Args:
            predictions, truth, reference_px: as in :func:`pck_correct`, with J = ``num_joints``. Where a joint
                counts, a NaN coordinate makes it wrong.
            annotated: ``(N, J)`` bool.

        Raises:
            ValueError: the shapes do not fit together.
        """
        right = pck_correct(predictions, truth, reference_px, self.threshold)
        if right.shape[1] != self.num_joints or annotated.shape != right.shape:
            shapes = f"{tuple(predictions.shape)} and {tuple(annotated.shape)}"
            expected = f"(N, {self.num_joints}, 2) and (N, {self.num_joints})"
            raise ValueError(f"predictions and annotated are {shapes}: expected {expected}")
        measurable = torch.isfinite(reference_px) & (reference_px > 0)
        counted = annotated & measurable.unsqueeze(1)
        self.correct += (right & counted).sum(0)
        self.count += counted.sum(0)

    def compute(self) -> Tensor:
        """Each joint's share ``(J,)`` in [0, 1], of all processes together; NaN where a joint never counted."""
        return self.correct / self.count

    def totals(self) -> tuple[Tensor, Tensor]:
        """``correct`` and ``count``, ``(J,)`` int64, summed over all processes: every process has to call it."""
        # the states hold the sum during compute alone; read outside, they are those of one process
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, process_group=self.process_group):
            return self.correct.clone(), self.count.clone()
