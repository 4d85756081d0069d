"""The networks whose training is measured: real ones, and binary ones with every latent, plain and lean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from shared_step import NUM_CLASSES, Loss, Training, labelled_pictures, real_resnet18
from torch import Tensor, nn

from bnnlight.backbones import ResNet18, StackedHourglass
from bnnlight.data.keypoints import heatmaps
from bnnlight.nn import Dense, Holistic, LatentFactory, Matrix, Rotated, Tucker, real_valued
from bnnlight.optim import SOAP, Muon
from bnnlight.tasks.optimization import make_optimizer

REAL = {"real, contiguous": torch.contiguous_format, "real, channels last": torch.channels_last}
"""Rows of the real network → memory format; the quicker one is the baseline."""

# at full rank from the identity, which needs no decomposition: what a step costs does not depend on the values
LATENTS: dict[str, LatentFactory] = {
    "dense": Dense,
    "Matrix": partial(Matrix, start="identity"),
    "Tucker 0.5": partial(Tucker, rank=0.5),
    "Tucker": partial(Tucker, start="identity"),
    "Holistic": partial(Holistic, start="identity"),
    "Matrix, bf16": partial(Matrix, start="identity", products="bfloat16"),
    "Tucker 0.5, bf16": partial(Tucker, rank=0.5, products="bfloat16"),
    "Tucker, bf16": partial(Tucker, start="identity", products="bfloat16"),
    "Holistic, bf16": partial(Holistic, start="identity", products="bfloat16"),
    "Rotated": Rotated,
    "Rotated, blocks of 32, bf16": partial(Rotated, block=32, products="bfloat16"),
}
"""Rows of the binary network, with α for each channel, at full rank unless a rank is named; ``bf16``: of factors."""

OPTIMIZERS: dict[str, OptimizerCallable] = {
    "Muon": partial(Muon, lr=1e-4),
    "Muon, bf16": partial(Muon, lr=1e-4, products="bfloat16"),
    "torch.optim.Muon": partial(torch.optim.Muon, lr=1e-4),
    "SOAP": partial(SOAP, lr=1e-4),
    "SOAP, bf16": partial(SOAP, lr=1e-4, products="bfloat16"),
}
"""Optimizers of the rows ``dense + NAME``; all other rows have AdamW in one fused call. The package pytorch_optimizer,
which only comparisons need, adds its SOAP where it is installed."""
if find_spec("pytorch_optimizer"):
    import pytorch_optimizer

    OPTIMIZERS["pytorch_optimizer.SOAP"] = partial(pytorch_optimizer.SOAP, lr=1e-4)

WITH = " + "
"""Stands between a row's network and its optimizer."""

LEAN = ", lean"
"""Ends the name of a row that recomputes instead of keeping."""

NUM_JOINTS, JOINT_STRIDE = 16, 4


@dataclass(frozen=True)
class Setting:
    """What is trained on what.

    Attributes:
        name: for tables.
        network: ResNet-18 of 1000 classes, or the hourglass of ``configs/hg_mpii.yaml``.
        image_size: height and width, px.
        batch_size: pictures.
        num_rounds: steps of each row that are timed.
        stem: of ResNet-18.
        features: of the hourglass.
    """

    name: str
    network: Literal["resnet18", "hourglass"]
    image_size: int
    batch_size: int
    num_rounds: int
    stem: Literal["imagenet", "small"] = "imagenet"
    features: int = 256

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one picture."""
        return 3, self.image_size, self.image_size


def row_names() -> list[str]:
    """All rows, real ones first."""
    return [*REAL, *LATENTS, *(name + LEAN for name in LATENTS), *(f"dense{WITH}{name}" for name in OPTIMIZERS)]


def make_network(setting: Setting, row: str) -> nn.Module:
    """The network of a row, in its memory format: that of the row for real ones, channels last for binary ones."""
    torch.manual_seed(0)
    if row in REAL:
        small = setting.network == "resnet18"
        network = real_resnet18(setting.stem) if small else real_valued(StackedHourglass(features=setting.features))
        return network.to(memory_format=REAL[row])
    row = row.split(WITH)[0]
    options = {"latent": LATENTS[row.removesuffix(LEAN)], "scale": "channel", "lean": row.endswith(LEAN)}
    if setting.network == "resnet18":
        network = ResNet18(stem=setting.stem, num_classes=NUM_CLASSES, **options)
    else:
        network = StackedHourglass(NUM_JOINTS, setting.features, head_bias=-5.0, **options)
    return network.to(memory_format=torch.channels_last)


def make_batch(setting: Setting) -> tuple[Tensor, Tensor]:
    """Random pictures with classes ``(N,)`` or, for the hourglass, heat maps ``(N, joints, H/4, W/4)``."""
    torch.manual_seed(0)
    images, labels = labelled_pictures(setting.batch_size, setting.image_size)
    if setting.network == "resnet18":
        return images, labels
    size = setting.image_size // JOINT_STRIDE
    return images, heatmaps.render(size * torch.rand(setting.batch_size, NUM_JOINTS, 2), size, size)


def heat_map_loss(maps: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of one stack's heat maps."""
    return F.binary_cross_entropy_with_logits(maps.squeeze(1), targets)


def make_training(
    setting: Setting,
    row: str,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    change: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Training:
    """A row ready to be trained.

    Args:
        setting: what it is trained on.
        row: one of :func:`row_names`.
        device: where.
        dtype: of autocast.
        change: applied to the network at last, such as ``torch.compile``.
    """
    network = change(make_network(setting, row).to(device))
    images, targets = (t.to(device) for t in make_batch(setting))
    images = images.contiguous(memory_format=REAL.get(row, torch.channels_last))
    loss: Loss = F.cross_entropy if setting.network == "resnet18" else heat_map_loss
    asked = OPTIMIZERS.get(row.partition(WITH)[2])
    optimizer = None if asked is None else lambda network: make_optimizer(network, asked)
    return Training(network, images, targets, loss, dtype, optimizer)


def chosen(rows: Sequence[str] | None) -> list[str]:
    """The rows that were asked for.

    Raises:
        ValueError: one is not known, or the real network is missing.
    """
    known = row_names()
    if rows is None:
        return known
    if unknown := [row for row in rows if row not in known]:
        raise ValueError(f"unknown row {unknown[0]!r}: choose from {', '.join(map(repr, known))}")
    if not REAL.keys() & set(rows):
        raise ValueError(f"no row to compare with: choose {' or '.join(map(repr, REAL))} too")
    return list(rows)
