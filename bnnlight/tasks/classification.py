"""`ClassificationTask`: image classification."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric

from bnnlight.imaging.class_pictures import caption
from bnnlight.nn.compute.kept_weights import KeptWeights
from bnnlight.optim.groups import check_alpha_lr
from bnnlight.tasks.dry_run import answer, picture_shape
from bnnlight.tasks.mixing import Mixing
from bnnlight.tasks.optimization import configure_optimizers, step_schedule
from bnnlight.tasks.optimizer_states import renew_checkpoint
from bnnlight.tasks.ranks import mean_over_ranks
from bnnlight.tasks.teacher import Teacher, divergence, watching


def topk_correct(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """1 where the label is among the k largest logits, else 0; for soft labels, the share that is among them.

    Args:
        logits: ``(N, classes)``.
        labels: ``(N,)``, class indices; or ``(N, classes)``, shares that sum up to 1.
        k: more than the number of classes counts as that number.

    Returns:
        ``(N,)`` float.
    """
    best = logits.topk(min(k, logits.shape[1])).indices
    if labels.ndim == 2:
        return labels.gather(1, best).sum(1).float()
    return (best == labels.unsqueeze(1)).any(1).float()


class ClassificationTask(L.LightningModule):
    """Trains a network to tell classes apart: cross entropy, top-1 and top-5.

    Logs ``train/loss`` and ``train/acc``; ``val/loss``, ``val/acc1``, ``val/acc5``; the same under ``test/``.
    Accuracies are shares in [0, 1]. With a teacher of weight w and temperature T it minimizes

        (1 − w) · cross entropy + w · T² · KL(softmax(teacher / T) ‖ softmax(logits / T))

    (Hinton, Vinyals, Dean 2015, https://arxiv.org/abs/1503.02531), and logs the sum as ``train/loss``, the two parts
    without their weights as ``train/loss_task`` and ``train/loss_teacher``. Feature maps can be imitated too, see
    :class:`bnnlight.tasks.Teacher`.

    With ``mixing`` the labels of a training batch are soft, and in ``train/acc`` a picture counts by the share of its
    label that belongs to the network's first choice. A teacher sees the mixed pictures.

    Args:
        backbone: ``(N, C, H, W)`` → logits ``(N, classes)``.
        optimizer: makes an optimizer from parameter groups; latent factors, α, batch norm and the rest are
            groups of their own, and weight decay acts on real weights only.
        scheduler: makes a learning-rate scheduler, stepped once an epoch. Its rates are those of real weights; all
            other groups keep their relative rates. None: linear warm-up, then a cosine to zero over the whole run,
            stepped once a batch.
        warmup: share of the run that the default schedule warms up, in [0, 1).
        label_smoothing: share of the target spread over all classes, in [0, 1).
        alpha_lr: learning rate of α relative to the optimizer's. Small, because every step moves an entry of
            α by about the learning rate, a large part of its size of some 0.1.
        channels_last: keeps feature maps as (N, H, W, C) in memory, which most convolutions are quicker on.
        teacher: gives logits ``(N, classes)`` of the same classes.
        mixing: mixes the pictures of a training batch; the data must name their ``classes``.

    Raises:
        ValueError: label smoothing or ``alpha_lr`` out of range.
    """

    def __init__(
        self,
        backbone: nn.Module,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        warmup: float = 0.05,
        label_smoothing: float = 0.0,
        alpha_lr: float = 0.1,
        channels_last: bool = True,
        teacher: Teacher | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__()
        # weights stay the same for the batches of an optimizer step, and while the network is measured
        self.kept_weights, self.measured_weights = KeptWeights(), KeptWeights()
        for weights in (self.kept_weights, self.measured_weights):
            weights.follow_loads(self)
        check_alpha_lr(alpha_lr)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}: give a share from 0 to below 1")
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone = backbone.to(memory_format=self.memory_format)
        self.optimizer, self.scheduler, self.warmup, self.alpha_lr = optimizer, scheduler, warmup, alpha_lr
        self.label_smoothing, self.teacher, self.mixing = label_smoothing, teacher, mixing
        self.class_names: list[str] = []
        names = ("train/acc", *(f"{split}/{key}" for split in ("val", "test") for key in ("loss", "acc1", "acc5")))
        self.means = nn.ModuleDict({name: MeanMetric() for name in names})

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x.contiguous(memory_format=self.memory_format))

    def setup(self, stage: str) -> None:
        self.class_names = list(getattr(self.trainer.datamodule, "classes", None) or self.class_names)
        if self.teacher and stage == "fit":
            self.teacher.prepare(self.class_names, self.memory_format, self.backbone)
        if self.mixing and stage == "fit" and not self.class_names:
            raise ValueError("mixing: the data do not say how many classes there are: give their module `classes`")

    def check_data(self, data: L.LightningDataModule, stage: str) -> None:
        """Makes sure before the first step that network, teacher and data fit: classes, channels and size of pictures.

        Args:
            data: set up for the stage.
            stage: ``fit``, ``validate`` or ``test``.

        Raises:
            ValueError: they do not; the message says what the data have and what to set.
        """
        shape = picture_shape(data)
        logits = None if shape is None else answer(self, shape)
        if logits is None:
            return
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            description = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ValueError(f"the backbone answers with {description}: expected logits (N, classes)")
        classes, num_outputs = list(getattr(data, "classes", None) or ()), logits.shape[1]
        if classes and len(classes) != num_outputs:
            raise ValueError(
                f"the data have {len(classes)} classes, and the network distinguishes {num_outputs}: "
                f"set model.backbone.num_classes to {len(classes)}"
            )
        if self.teacher and stage == "fit":
            self.teacher.prepare(classes, self.memory_format, self.backbone)
            self.teacher.check_network(self, shape, logits, num_free=0)

    def logged(self, data: L.LightningDataModule) -> set[str]:
        """Keys that it logs while training, any of which can be monitored."""
        taught = self.teacher.keys if self.teacher else set()
        return {"train/loss", *taught, *(name for name in self.means if not name.startswith("test/"))}

    def on_train_epoch_start(self) -> None:
        self.kept_weights.begin(self.trainer.accumulate_grad_batches > 1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        if self.mixing:
            images, labels = self.mixing(*batch, len(self.class_names), self.trainer.current_epoch, batch_idx)
        taught = self.teacher(images) if self.teacher else None
        with self.kept_weights.used(), watching(self.teacher, self.backbone):
            logits = self(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if self.teacher:
            self.teacher.check(taught, logits)
            loss = self.teacher.mix(self, loss, divergence(logits, taught, self.teacher.temperature))
        self.log("train/loss", mean_over_ranks(loss), prog_bar=True)
        self.means["train/acc"].update(topk_correct(logits.detach(), labels, 1))
        return loss

    def on_train_epoch_end(self) -> None:
        # a metric object, so that batches and ranks of different size count by their images
        self.log("train/acc", self.means["train/acc"])

    def on_validation_epoch_start(self) -> None:
        self.measured_weights.begin()

    def on_validation_epoch_end(self) -> None:
        self.measured_weights.end()

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "test")

    def predict_step(self, batch: Tensor | tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Class probabilities ``(N, classes)``."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        with self.measured_weights.used():
            return self(images).softmax(1)

    def draw(self, batch: tuple[Tensor, Tensor], outputs: dict[str, Tensor], count: int) -> list[np.ndarray]:
        """Pictures with the predicted class below them, and the true one where it differs.

        Args:
            batch: as it was passed to the step.
            outputs: what the step returned.
            count: how many pictures, at most.

        Returns:
            A picture ``(H, W, 3)`` uint8 for each of the batch's first items; none where the data module has no
            ``to_pixels``.
        """
        to_pixels = getattr(self.trainer.datamodule, "to_pixels", None)
        if to_pixels is None:
            return []
        images, labels = (part[:count] for part in batch)
        top = outputs["logits"][:count].float().softmax(1).max(1)
        rows = zip(to_pixels(images), top.indices.tolist(), top.values.tolist(), labels.tolist(), strict=True)
        return [caption(pixels, self._name(best), sure, self._name(true)) for pixels, best, sure, true in rows]

    def _name(self, label: int) -> str:
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def _evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> dict[str, Tensor]:
        images, labels = batch
        with self.measured_weights.used():
            logits = self(images)
        self._mean(f"{split}/loss", F.cross_entropy(logits, labels, reduction="none"))
        self._mean(f"{split}/acc1", topk_correct(logits, labels, 1), prog_bar=True)
        self._mean(f"{split}/acc5", topk_correct(logits, labels, 5))
        return {"logits": logits}

    def _mean(self, name: str, values: Tensor, prog_bar: bool = False) -> None:
        # a metric object, so that batches and ranks of different size count by their images
        self.means[name].update(values.float())
        self.log(name, self.means[name], on_step=False, on_epoch=True, prog_bar=prog_bar)

    def configure_optimizers(self) -> dict[str, Any]:
        configured = configure_optimizers(self, self.optimizer, self.scheduler, self.warmup, self.alpha_lr)
        for weights in (self.kept_weights, self.measured_weights):
            weights.follow(configured["optimizer"])
        return configured

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        step_schedule(scheduler, metric)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["class_names"] = self.class_names

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        renew_checkpoint(checkpoint, self, self.alpha_lr)
        self.class_names = list(checkpoint.get("class_names", []))
