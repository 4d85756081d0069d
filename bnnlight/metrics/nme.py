"""NME, the normalized mean error: how far joints lie off their places, by a reference length of the face or thing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class NME(Metric):
    """Mean of ‖prediction − truth‖ / reference over all annotated joints, over batches and processes.

    Each joint counts once, so that one with more annotated joints counts more, as in mmpose's ``NME`` and
    ``keypoint_nme``. The reference of faces is √(width · height) of the box (Bulat, Tzimiropoulos 2017,
    https://arxiv.org/abs/1703.07332) or the distance between the outer corners of the eyes.

    Attributes:
        total: ``()`` float32, sum of the errors; of this process alone, as ``count``.
        count: ``()`` int64, of how many joints.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, truth: Tensor, annotated: Tensor, reference_px: Tensor) -> None:
        """Adds a batch. A joint counts where it is annotated and the reference is finite and above 0.

        Args:
            predictions, truth: ``(N, J, 2)``, x and y in px of one frame. Where a joint counts, a NaN coordinate makes
                the mean NaN.
            annotated: ``(N, J)`` bool.
            reference_px: ``(N,)``.

        Raises:
            ValueError: the shapes do not fit together.
        """
        num, joints = annotated.shape
        if predictions.shape != (num, joints, 2) or truth.shape != predictions.shape or reference_px.shape != (num,):
            shapes = ", ".join(str(tuple(t.shape)) for t in (predictions, truth, annotated, reference_px))
            raise ValueError(f"shapes are {shapes}: expected (N, J, 2), (N, J, 2), (N, J) and (N,)")
        counted = annotated & (torch.isfinite(reference_px) & (reference_px > 0)).unsqueeze(1)
        errors = torch.linalg.vector_norm(predictions - truth, dim=-1) / reference_px.unsqueeze(1)
        self.total += torch.where(counted, errors, 0).sum()
        self.count += counted.sum()

    def totals(self) -> tuple[Tensor, Tensor]:
        """``total`` and ``count``, summed over all processes: every process has to call it."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, process_group=self.process_group):
            return self.total.clone(), self.count.clone()

    def compute(self) -> Tensor:
        """The mean ``()`` of all processes together; NaN where no joint counted."""
        return self.total / self.count
