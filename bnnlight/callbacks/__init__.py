"""Callbacks: what is peculiar to training binary networks, logged. Each works on any model with binary layers."""

from bnnlight.callbacks.flip_rates import FlipRates

__all__ = ["FlipRates"]
