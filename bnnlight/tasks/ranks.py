"""The mean of a value over all processes of a run."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of a value over all processes of a run, without gradient; in a single process the value itself.

    Every process has to call it. Lightning's ``sync_dist`` waits at a barrier for each value, which costs a GPU its
    lead over the host.

    Args:
        value: any shape, floating point.
    """
    value = value.detach()
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
