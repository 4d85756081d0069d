"""Metrics: flip rate, measures of rank, PCK and PCKh, NME, average precision by OKS."""

from bnnlight.metrics.flip_rate import flip_rate, pack_signs
from bnnlight.metrics.nme import NME
from bnnlight.metrics.oks import evaluate_oks
from bnnlight.metrics.pck import PCK, head_size_px, mean_over_joints, mean_over_visible, pck_correct
from bnnlight.metrics.rank import effective_rank, energy_rank, singular_values, stable_rank

__all__ = [
    "NME",
    "PCK",
    "effective_rank",
    "energy_rank",
    "evaluate_oks",
    "flip_rate",
    "head_size_px",
    "mean_over_joints",
    "mean_over_visible",
    "pack_signs",
    "pck_correct",
    "singular_values",
    "stable_rank",
]
