"""Copies of what a metric has counted so far; the adapter for what is private to torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def copied(state: dict[str, Any], device: torch.device | str | None = None) -> dict[str, Any]:
    """A metric's state that stays as it is while the metric goes on counting, on ``device``, else where it is."""
    return {name: _copied(value, device) for name, value in state.items()}


def put_back(metric: Metric, state: dict[str, Any]) -> None:
    """Sets a metric's state, which changes with the metric from now on."""
    for name, value in state.items():
        setattr(metric, name, value)
    metric._update_count = max(1, metric.update_count)  # or it warns that it has seen nothing


def _copied(value: Any, device: torch.device | str | None) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device or value.device, copy=True)
    # metrics add to a list and leave what stands in it: a copy of all that an epoch counted would be slow at each step
    return [_moved(item, device) for item in value] if isinstance(value, list) else value


def _moved(item: Any, device: torch.device | str | None) -> Any:
    if isinstance(item, list):
        return [_moved(each, device) for each in item]
    return item.detach().to(device or item.device) if isinstance(item, Tensor) else item
