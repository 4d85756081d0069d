"""Training a small network: see tests/fixtures/small_network.py."""

from fixtures.small_network import fit, logger, network, seed
from fixtures.spoiled_network import stopped

__all__ = ["fit", "logger", "network", "seed", "stopped"]
