"""Random states and metrics of each process, saved and restored so that a run goes on as if never stopped."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torchmetrics import Metric

from bnnlight.guards.metric_copies import copied, put_back


def random_states(device: torch.device) -> dict[str, Any]:
    """States of all random number generators of this process: Python's, numpy's, torch's on CPU and device.

    Plain data and tensors alone, as a checkpoint is read without running code from it.
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Puts all generators back where :func:`random_states` found them."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, numbers, *rest = states["numpy"]
    np.random.set_state((kind, numbers.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def metric_states(model: nn.Module) -> dict[str, dict[str, Any]]:
    """States of all torchmetrics of a module that have seen something since they were last reset."""
    return {
        name: copied(metric.metric_state, "cpu")
        for name, metric in model.named_modules()
        if isinstance(metric, Metric) and metric.update_called
    }


def restore_metric_states(model: nn.Module, states: dict[str, dict[str, Any]]) -> None:
    """Puts metrics back where :func:`metric_states` found them; those that are gone from the module are left out."""
    for name, metric in model.named_modules():
        if isinstance(metric, Metric) and name in states:
            put_back(metric, copied(states[name], metric.device))


def of_all_processes(own: dict[str, Any], group: Any = None) -> list[dict[str, Any]]:
    """What each process hands in, by rank; all of the group have to call it. Without a group it is one process."""
    if group is None:
        return [own]
    states: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(states, own, group=group)
    return states


def share_of(rank: int, num_processes: int, states: list[dict[str, Any]]) -> dict[str, Any]:
    """What a process of a resumed run takes over from the states of :func:`of_all_processes`.

    With another number of processes than before, rank r goes on with the random numbers that rank r had, if there was
    one, and the counts under way are lost to none: the ranks that are gone leave theirs to those that are left.
    """
    own = dict(states[rank]) if rank < len(states) else {}
    own["metrics"] = dict(own.get("metrics", {}))
    for other in states[rank + num_processes :: num_processes]:
        for name, metric in other["metrics"].items():
            mine = own["metrics"].get(name)
            own["metrics"][name] = metric if mine is None else {key: mine[key] + metric[key] for key in mine}
    return own
