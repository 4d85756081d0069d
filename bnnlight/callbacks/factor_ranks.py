"""Logs the ranks of latent weights and of their factors: how much of them is used."""

from __future__ import annotations

import lightning as L
from torch import Tensor

from bnnlight.callbacks.interval import IntervalCallback, log_figures
from bnnlight.metrics.rank import effective_rank, energy_rank, singular_values, stable_rank
from bnnlight.nn.inspect import named_unfoldings


class FactorRanks(IntervalCallback):
    """Logs the ranks of each mode's unfolding of W̃ and of each factor, four kinds of each.

    ``bnn/rank_nominal/LAYER/mode0`` … is the largest rank that the unfolding can have by the weight's shape and
    the decomposition's ranks; ``bnn/rank_effective/…``, ``bnn/rank_stable/…`` and ``bnn/rank_energy/…`` (90 %)
    say how much of it is used, see :mod:`bnnlight.metrics.rank`. Factors take the place of modes:
    ``LAYER/factor0`` …, and for a tensor that layers share ``LAYER/factor_layers``. A factor that layers share
    is decomposed once and logged for each of them.

    The first look is before the first step, the last one after the last step. Weights are equal on all ranks
    after a step, so nothing is communicated, and only rank zero looks.

    Args:
        interval: number of optimizer steps between two looks.

    Raises:
        ValueError: the interval is below 1.
    """

    def __init__(self, interval: int = 1000) -> None:
        super().__init__(interval)

    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        ranks: dict[str, float] = {}
        # with the factor itself, since only while it lives its place in memory is its own
        decomposed: dict[tuple[int, tuple[int, ...]], tuple[Tensor, dict[str, float]]] = {}
        for layer, unfoldings, factors in named_unfoldings(pl_module):
            measured = {f"mode{mode}": _ranks(matrix) for mode, matrix in enumerate(unfoldings)}
            for name, factor in factors.items():
                place = factor.data_ptr(), tuple(factor.shape)
                if place not in decomposed:
                    decomposed[place] = factor, _ranks(factor)
                measured[name] = decomposed[place][1]
            ranks |= {f"bnn/rank_{k}/{layer}/{name}": v for name, values in measured.items() for k, v in values.items()}
        log_figures(trainer, ranks)


def _ranks(matrix: Tensor) -> dict[str, float]:
    s = singular_values(matrix)
    return {
        "effective": effective_rank(s),
        "stable": stable_rank(s),
        "energy": energy_rank(s),
        "nominal": float(min(matrix.shape)),
    }
