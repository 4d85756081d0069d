"""`Mixing`: pictures of a training batch mixed with each other, and their labels likewise."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from bnnlight.data.loading.sampling import Draw, run_seed, seeded_by


class Mixing:
    """Mixes each picture of a training batch with the one before it: mixup, CutMix, or one of the two at random.

    With λ drawn for each batch from Beta(a, a) and pictures x, x' with one-hot labels y, y'::

        mixup    λ x + (1 − λ) x'                                                           and  λ y + (1 − λ) y'
        CutMix   x, except for a box of height √(1 − λ) H and width √(1 − λ) W of x'       and  λ y + (1 − λ) y'

    where CutMix's box has a centre drawn evenly, is cut off at the border, and λ is then the share of x that is left.
    torchvision's ``v2.MixUp`` and ``v2.CutMix`` do the work. In a config::

        model:
          init_args:
            mixing: {class_path: bnnlight.tasks.Mixing, init_args: {mixup: 0.2, cutmix: 1.0}}

    What is drawn follows from the run's seed, the epoch and the batch's number, so a resumed run mixes as
    one that was never stopped. Processes that train together draw the same λ and box, and each mixes its own pictures.
    Training's own random numbers are left alone.

    Args:
        mixup: a of mixup; 0 turns it off.
        cutmix: a of CutMix; 0 turns it off. With both above 0, one of them, drawn evenly, mixes a batch.

    Raises:
        ValueError: one is not a finite number of at least 0, or both are 0.

    Sources: Zhang et al. 2018, https://arxiv.org/abs/1710.09412; Yun et al. 2019, https://arxiv.org/abs/1905.04899.
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        for name, value in (("mixup", mixup), ("cutmix", cutmix)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"mixing: {name} is {value}: give a finite number of at least 0, 0 for none")
        if not mixup and not cutmix:
            raise ValueError("mixing: mixup and cutmix are both 0: give one above 0, or leave mixing out")
        self.mixup, self.cutmix = mixup, cutmix
        self._ways = [make(alpha=a) for make, a in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if a]

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, epoch: int, batch: int
    ) -> tuple[Tensor, Tensor]:
        """Mixed images, and their soft labels.

        Args:
            images: ``(N, C, H, W)``.
            labels: ``(N,)``, class indices.
            num_classes: number of classes.
            epoch, batch: of the training, counted from 0, from which the random numbers follow.

        Returns:
            Images of the same shape; labels ``(N, num_classes)``, float32, shares that sum up to 1.
        """
        numbers = np.random.default_rng([run_seed(), epoch, batch])
        way = self._ways[numbers.integers(len(self._ways))]
        with seeded_by(Draw(0, int(numbers.integers(2**32)))):
            return way(images, F.one_hot(labels, num_classes).float())
