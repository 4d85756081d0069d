"""From logits to the names of the most probable classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, exp(z) / Σ exp(z), float64.

    Args:
        logits: ``(N, classes)``.
    """
    # the largest becomes 1, so that none is infinite
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def top_classes(probabilities: np.ndarray, names: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The most probable classes, best first; of equal ones the first.

    Args:
        probabilities: ``(classes,)``.
        names: of the classes; without them, their indices.
        count: how many, at most all.
    """
    count = min(count, len(probabilities))
    # sorting a thousand for the sake of five would take longer than all else
    least = np.partition(probabilities, -count)[-count]
    likely = np.flatnonzero(probabilities >= least)
    best = likely[np.argsort(-probabilities[likely], kind="stable")][:count].tolist()
    return [{"class": names[i] if i < len(names) else str(i), "probability": float(probabilities[i])} for i in best]
