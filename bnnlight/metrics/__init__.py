"""Metrics: pure functions and torchmetrics classes."""

from bnnlight.metrics.flip_rate import flip_rate, pack_signs

__all__ = ["flip_rate", "pack_signs"]
