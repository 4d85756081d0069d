"""Callbacks: what is peculiar to training binary networks, and what they predict, logged."""

from bnnlight.callbacks.flip_rates import FlipRates
from bnnlight.callbacks.pictures import Pictures

__all__ = ["FlipRates", "Pictures"]
