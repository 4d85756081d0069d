"""Logs the scaling factors α while training."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger

from bnnlight.callbacks.interval import IntervalCallback
from bnnlight.nn.inspect import named_binary_layers

NUM_BINS = 64
"""Of a histogram; W&B draws as many."""


class Alphas(IntervalCallback):
    """Logs how the α of each binary layer are spread.

    ``bnn/alpha_mean/LAYER``, ``bnn/alpha_std/LAYER`` (of the entries themselves, divided by their number),
    ``bnn/alpha_min/LAYER``, ``bnn/alpha_max/LAYER`` and ``bnn/alpha_negative/LAYER``, the share below zero; to W&B
    also a histogram, ``bnn/alpha/LAYER``. Layers without α (scale ``none``) log nothing.

    The first look is before the first step, the last one after the last step. α is equal on all ranks after a
    step, so nothing is communicated, and only rank zero looks.

    Args:
        interval: number of optimizer steps between two looks.

    Raises:
        ValueError: the interval is below 1.
    """

    def __init__(self, interval: int = 100) -> None:
        super().__init__(interval)

    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        scales = ((name, layer.alpha()) for name, layer in named_binary_layers(pl_module))
        alphas = {name: alpha.detach().float().cpu().numpy().ravel() for name, alpha in scales if alpha is not None}
        if not alphas:
            return
        spread = {f"bnn/alpha_{k}/{name}": v for name, alpha in alphas.items() for k, v in _spread(alpha).items()}
        for logger in trainer.loggers:
            histograms = _histograms(alphas) if isinstance(logger, WandbLogger) else {}
            logger.log_metrics(spread | histograms, step=trainer.global_step)


def _spread(alpha: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(alpha.mean(dtype=np.float64)),
        "std": float(alpha.std(dtype=np.float64)),
        "min": float(alpha.min()),
        "max": float(alpha.max()),
        "negative": float((alpha < 0).mean()),
    }


def _histograms(alphas: dict[str, np.ndarray]) -> dict[str, Any]:
    import wandb  # takes long to import, and is there wherever a WandbLogger is

    finite = {name: alpha for name, alpha in alphas.items() if np.isfinite(alpha).all()}
    # in double precision, so that there is room for the bins between entries that are next to equal
    counted = {name: np.histogram(alpha.astype(np.float64), NUM_BINS) for name, alpha in finite.items()}
    return {f"bnn/alpha/{name}": wandb.Histogram(np_histogram=bins) for name, bins in counted.items()}
