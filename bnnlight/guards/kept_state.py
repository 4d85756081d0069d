"""`KeptState`: copies of a network's buffers and metrics, so that a training batch can be taken back."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from bnnlight.guards.metric_copies import copied, put_back
from bnnlight.nn.compute.kernels import copy_all


class KeptState:
    """Copies of a network's buffers and metrics.

    Buffers are all of them: a batch norm's running statistics, its count of batches, and whatever else. They are
    copied in place, a dtype at a time, so that keeping them waits for nothing and needs new memory only once.

    Args:
        model: whose modules stay the same as long as this is used.
    """

    def __init__(self, model: nn.Module) -> None:
        groups: dict[Any, list[tuple[nn.Module, str]]] = defaultdict(list)
        listed: set[int] = set()
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if id(buffer) not in listed:  # of those that modules share, one copy
                    listed.add(id(buffer))
                    groups[buffer.device, buffer.dtype].append((module, name))
        self._places = list(groups.values())
        self._copies = [[torch.empty_like(b) for b in buffers] for buffers in self._present()]
        self._metrics = [module for module in model.modules() if isinstance(module, Metric)]
        self._states: list[dict[str, Any] | None] = []

    def _present(self) -> list[list[Tensor]]:
        # by name, as a module may put another tensor in a buffer's place
        return [[getattr(module, name) for module, name in places] for places in self._places]

    @torch.no_grad()
    def keep(self) -> None:
        """Copies what is there now."""
        for copies, present in zip(self._copies, self._present(), strict=True):
            copy_all(copies, present)
        # of a metric that nothing was counted in there is nothing to copy: of validation's, while training
        self._states = [copied(metric.metric_state) if metric.update_called else None for metric in self._metrics]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts back what was there when it was kept."""
        for copies, present in zip(self._copies, self._present(), strict=True):
            copy_all(present, copies)
        for metric, state in zip(self._metrics, self._states, strict=True):
            if state is not None:
                put_back(metric, copied(state))
            elif metric.update_called:
                metric.reset()
