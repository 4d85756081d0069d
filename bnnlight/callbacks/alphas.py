"""Logs the scaling factors α while training."""

from __future__ import annotations

import lightning as L
import numpy as np

from bnnlight.callbacks.interval import IntervalCallback
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.tracking.trackers import hand_figures


class Alphas(IntervalCallback):
    """Logs how the α of each binary layer are spread.

    ``bnn/alpha_mean/LAYER``, ``bnn/alpha_std/LAYER`` (of the entries themselves, divided by their number),
    ``bnn/alpha_min/LAYER``, ``bnn/alpha_max/LAYER`` and ``bnn/alpha_negative/LAYER``, the share below zero; to
    trackers that show histograms also ``bnn/alpha/LAYER``. Layers without α (scale ``none``) log nothing.

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
        # in double precision, so that there is room for the bins between entries that are next to equal
        finite = {f"bnn/alpha/{n}": alpha.astype(np.float64) for n, alpha in alphas.items() if np.isfinite(alpha).all()}
        hand_figures(trainer.loggers, spread, finite, trainer.global_step)


def _spread(alpha: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(alpha.mean(dtype=np.float64)),
        "std": float(alpha.std(dtype=np.float64)),
        "min": float(alpha.min()),
        "max": float(alpha.max()),
        "negative": float((alpha < 0).mean()),
    }
