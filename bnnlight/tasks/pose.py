"""`PoseTask`: human pose estimation by heat maps."""

from __future__ import annotations

import dataclasses
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric

from bnnlight.data.keypoints import heatmaps
from bnnlight.imaging.heatmaps import to_heatmap, to_input
from bnnlight.imaging.pose_pictures import compare_poses
from bnnlight.imaging.skeletons import Skeleton
from bnnlight.nn.compute.kept_weights import KeptWeights
from bnnlight.optim.groups import check_alpha_lr
from bnnlight.tasks.dry_run import answer, picture_shape
from bnnlight.tasks.heatmap_losses import LOSSES, HeatmapLoss, heatmap_loss
from bnnlight.tasks.oks import tell_how_to_measure_oks
from bnnlight.tasks.optimization import configure_optimizers, step_schedule
from bnnlight.tasks.optimizer_states import renew_checkpoint
from bnnlight.tasks.pose_measures import PoseMeasures, marked_correct, measured
from bnnlight.tasks.ranks import mean_over_ranks
from bnnlight.tasks.teacher import Teacher, watching

_IN_PROGRESS = ("pckh", "pck", "pck_box", "ap")
PICTURE_PX = 256
"""About how wide a person is shown."""


def _skeleton_of(data: Any, default: Skeleton | None = None) -> Skeleton:
    skeleton = getattr(data, "skeleton", None) or default
    if skeleton is None:
        raise ValueError("the data module has no skeleton: pose needs one of bnnlight.data's, or of your own")
    return skeleton


def _check_maps(maps: Any, skeleton: Skeleton) -> None:
    joints = len(skeleton.joints)
    shape = tuple(maps.shape) if isinstance(maps, Tensor) else f"as a {type(maps).__name__}"
    if not isinstance(maps, Tensor) or maps.ndim != 5 or maps.shape[2] != joints:
        raise ValueError(
            f"the backbone gives heat maps {shape}: expected (N, stacks, {joints}, h, w), as the data "
            f"have {joints} joints; set model.backbone.num_joints to {joints}"
        )
    if maps.shape[3] != maps.shape[4]:
        raise ValueError(f"the backbone gives heat maps {shape} of square pictures: h and w must be the same")


class PoseTask(L.LightningModule):
    """Trains a network to find joints: heat maps, PCKh and PCK.

    Logs ``train/loss``; ``val/loss``; where the data have head boxes ``val/pckh`` (PCKh@0.5) and ``val/pckh01``
    (PCKh@0.1); where shoulder and hip are annotated ``val/pck`` (PCK@0.2 of the torso's length); where people have
    annotated boxes ``val/pck_box`` (PCK@0.2 of the box's longer side, as mmpose has it); the same under ``test/``.
    These are means over all visible joints; ``…_mean`` is the plain mean of the joints' own figures, and ``…_wrist`` a
    joint's, left and right averaged, unless there are very many. All are shares in [0, 1]. Joints that the skeleton
    excludes (MPII: pelvis and thorax) are not part of any mean. Where the data have a reference length for it,
    ``val/nme`` is the normalized mean error, :class:`bnnlight.metrics.NME`; where they have COCO's annotations and
    sigmas, ``val/ap``, ``val/ap50``, ``val/ap75``, ``val/ap_m``, ``val/ap_l`` and ``val/ar`` … are average precision
    and recall by OKS, :func:`bnnlight.metrics.evaluate_oks`.

    With a teacher of weight w it minimizes (1 − w) · loss against the annotation + w · loss against the teacher's
    answer (Zhang, Zhu, Ye 2019, https://arxiv.org/abs/1811.05419), on every stack and for the joints that are
    annotated: with ``bce`` the teacher's maps' sigmoid is the target, else the maps themselves. The sum is
    ``train/loss``, the parts without their weights are ``train/loss_task`` and ``train/loss_teacher``. Feature maps can
    be imitated too, see :class:`bnnlight.tasks.Teacher`.

    Args:
        backbone: ``(N, 3, H, W)`` → heat maps ``(N, stacks, J, h, w)``; the last stack is the answer.
        loss: ``bce``: cross entropy with logits, as in Bulat's line of work. ``mse``: as in Newell et al. and
            mmpose. ``awing``: Adaptive Wing, as in BiHRNet (https://arxiv.org/abs/2311.10296); as with ``mse`` the heat
            maps are the network's output as it is, so give an hourglass ``head_bias: 0``. On every stack; see
            :func:`bnnlight.tasks.heatmap_losses.heatmap_loss`.
        sigma: standard deviation of the targets, heat-map pixels.
        flip_test: averages the heat maps of each picture and of its mirror image when measuring.
        optimizer, scheduler, warmup, alpha_lr, channels_last: see :class:`bnnlight.tasks.ClassificationTask`.
        teacher: gives heat maps ``(N, stacks, J, h, w)``, its number of stacks being its own, and was trained with
            the same ``loss``; the last stack is its answer.

    Raises:
        ValueError: an unknown loss, a sigma that is not above 0, ``alpha_lr`` out of range, or a teacher with a
            temperature.
    """

    def __init__(
        self,
        backbone: nn.Module,
        loss: HeatmapLoss = "bce",
        sigma: float = 1.0,
        flip_test: bool = True,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        warmup: float = 0.05,
        alpha_lr: float = 0.1,
        channels_last: bool = True,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        # weights stay the same for the batches of an optimizer step, and while the network is measured
        self.kept_weights, self.measured_weights = KeptWeights(), KeptWeights()
        for weights in (self.kept_weights, self.measured_weights):
            weights.follow_loads(self)
        check_alpha_lr(alpha_lr)
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}: choose {', '.join(LOSSES[:-1])} or {LOSSES[-1]}")
        if sigma <= 0:
            raise ValueError(f"sigma is {sigma}: give heat-map pixels above 0")
        if teacher and teacher.temperature != 1:
            raise ValueError("a teacher's temperature softens classes, and heat maps have none: leave it out")
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone = backbone.to(memory_format=self.memory_format)
        self.loss, self.sigma, self.flip_test = loss, sigma, flip_test
        self.optimizer, self.scheduler, self.warmup, self.alpha_lr = optimizer, scheduler, warmup, alpha_lr
        self.teacher = teacher
        self.skeleton: Skeleton | None = None
        self.losses = nn.ModuleDict({split: MeanMetric() for split in ("val", "test")})
        self.measures = nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x.contiguous(memory_format=self.memory_format))

    def setup(self, stage: str) -> None:
        self.skeleton = _skeleton_of(self.trainer.datamodule, self.skeleton)
        if self.teacher and stage == "fit":
            self.teacher.prepare(self.skeleton.joints, self.memory_format, self.backbone)
        data = self.trainer.datamodule
        self.measures = nn.ModuleDict({split: PoseMeasures(self.skeleton, data) for split in ("val", "test")})
        if stage != "test":
            tell_how_to_measure_oks(data, self.skeleton)

    def check_data(self, data: L.LightningDataModule, stage: str) -> None:
        """Makes sure before the first step that network, teacher and data fit: joints, and size of pictures and maps.

        Args:
            data: set up for the stage.
            stage: ``fit``, ``validate`` or ``test``.

        Raises:
            ValueError: they do not; the message says what the data have and what to set.
        """
        skeleton, shape = _skeleton_of(data), picture_shape(data)
        maps = None if shape is None else answer(self, shape)
        if maps is None:
            return
        _check_maps(maps, skeleton)
        if self.teacher and stage == "fit":
            self.teacher.prepare(skeleton.joints, self.memory_format, self.backbone)
            self.teacher.check_network(self, shape, maps, num_free=2)

    def logged(self, data: L.LightningDataModule) -> set[str]:
        """Keys that it logs while training, any of which can be monitored."""
        taught = self.teacher.keys if self.teacher else set()
        skeleton = _skeleton_of(data)
        return {"train/loss", "val/loss", *taught, *(f"val/{name}" for name in measured(data, skeleton))}

    def on_train_epoch_start(self) -> None:
        self.kept_weights.begin(self.trainer.accumulate_grad_batches > 1)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        taught = self.teacher(batch["image"]) if self.teacher else None
        with self.kept_weights.used(), watching(self.teacher, self.backbone):
            maps = self._maps(batch["image"])
        loss = self._loss(maps, batch)
        if self.teacher:
            self.teacher.check(taught, maps, num_free=2)
            targets = self._answer(taught)
            loss = self.teacher.mix(self, loss, heatmap_loss(maps.float(), targets, batch["weight"], self.loss))
        self.log("train/loss", mean_over_ranks(loss), prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.measured_weights.begin()

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "val")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "test")

    def on_validation_epoch_end(self) -> None:
        self.measured_weights.end()
        self._log_measures("val")

    def on_test_epoch_end(self) -> None:
        self.measured_weights.end()
        self._log_measures("test")

    def on_predict_epoch_end(self) -> None:
        self.measured_weights.end()

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Joints ``(N, J, 2)`` in pixels of the stored picture, and confidences ``(N, J)`` in [0, 1]."""
        with self.measured_weights.used():
            return self._decode(self._maps(batch["image"]), batch)

    def draw(self, batch: dict[str, Tensor], outputs: dict[str, Tensor], count: int) -> list[np.ndarray]:
        """Truth and prediction side by side, wrong joints marked: by PCKh@0.5, or PCK@0.2 without head boxes, of the
        torso or else of the box.

        Args:
            batch: as it was passed to the step.
            outputs: what the step returned.
            count: how many pictures, at most.

        Returns:
            A picture ``(H, W, 3)`` uint8 for each of the batch's first items.
        """
        pixels = self.trainer.datamodule.to_pixels(batch["image"][:count])
        enlarge = max(1, round(PICTURE_PX / pixels.shape[1]))
        annotated = batch["annotated"]
        columns = (batch["joints"], outputs["crop_joints"], annotated, annotated & ~outputs["correct"])
        rows = zip(pixels, *(column[:count].detach().cpu().numpy() for column in columns), strict=True)
        return [compare_poses(*row, self.skeleton, enlarge) for row in rows]

    def _maps(self, images: Tensor) -> Tensor:
        maps = self(images)
        _check_maps(maps, self.skeleton)
        return maps

    def _loss(self, maps: Tensor, batch: dict[str, Tensor]) -> Tensor:
        height, width = maps.shape[-2:]
        joints = to_heatmap(batch["joints"], batch["image"].shape[-1] / width)
        targets = heatmaps.render(joints, height, width, self.sigma)
        return heatmap_loss(maps.float(), targets, batch["weight"], self.loss)

    def _answer(self, maps: Tensor) -> Tensor:
        answer = maps[:, -1].float()
        return answer.sigmoid() if self.loss == "bce" else answer

    def _decode(self, maps: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        answer = self._answer(maps)
        if self.flip_test:
            flipped = self._answer(self(batch["image"].flip(-1)))
            answer = (answer + heatmaps.mirror(flipped, self.skeleton.mirrored)) / 2
        joints, confidence = heatmaps.decode(answer)
        joints = to_input(joints, batch["image"].shape[-1] / answer.shape[-1])
        turn, shift = batch["to_image"][:, :, :2], batch["to_image"][:, :, 2]
        in_image = joints @ turn.transpose(1, 2) + shift.unsqueeze(1)
        return {"joints": in_image, "crop_joints": joints, "confidence": confidence.clamp(0, 1)}

    def _evaluate(self, batch: dict[str, Tensor], split: str) -> dict[str, Tensor]:
        with self.measured_weights.used():
            maps = self._maps(batch["image"])
            predictions = self._decode(maps, batch)
        self.losses[split].update(self._loss(maps, batch), weight=batch["weight"].sum())
        self.log(f"{split}/loss", self.losses[split], on_step=False, on_epoch=True)
        self.measures[split].update(predictions, batch)
        predictions["correct"] = marked_correct(predictions, batch)
        return predictions

    def _log_measures(self, split: str) -> None:
        for name, figure in self.measures[split].figures(split, self.trainer.datamodule).items():
            self.log(f"{split}/{name}", figure, prog_bar=name in _IN_PROGRESS)

    def configure_optimizers(self) -> dict[str, Any]:
        configured = configure_optimizers(self, self.optimizer, self.scheduler, self.warmup, self.alpha_lr)
        for weights in (self.kept_weights, self.measured_weights):
            weights.follow(configured["optimizer"])
        return configured

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        step_schedule(scheduler, metric)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["skeleton"] = dataclasses.asdict(self.skeleton)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        renew_checkpoint(checkpoint, self, self.alpha_lr)
        if "skeleton" in checkpoint:
            self.skeleton = Skeleton(**checkpoint["skeleton"])
