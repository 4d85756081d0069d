"""What a run of several processes needs beyond DDP: batch norm over all, seeds of their own, and an end in order."""

from __future__ import annotations

import random

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from bnnlight.data.loading.sampling import run_seed
from bnnlight.nn.compute.sync_norm import desynchronize, synchronize


class SyncBatchNormAnywhere(TorchSyncBatchNorm):
    """Makes ``trainer.sync_batchnorm`` work on CPUs, where torch's layer refuses; on GPUs torch's layer is taken."""

    def apply(self, model: L.LightningModule) -> nn.Module:
        on_cpu = model.trainer.strategy.root_device.type == "cpu"
        return synchronize(model) if on_cpu else super().apply(model)

    def revert(self, model: nn.Module) -> nn.Module:
        return super().revert(desynchronize(model))


class SeedPerRank(L.Callback):
    """Lets the random numbers of each process go on from the run's seed + rank, once the model is built.

    Without it all processes draw alike: a dropout, say, drops the same places of each one's batch.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # here, because DDP seeds all ranks alike when it starts, and a checkpoint may yet bring its own states
        if stage == "fit":
            seed = trainer.strategy.broadcast(run_seed()) + trainer.global_rank
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)


def leave_process_group() -> None:
    """Takes this process out of the run's process group, where it is in one. To be called by all, after the last
    collective call.

    Lightning leaves the group standing. Its threads may then still hold a tensor as Python shuts down, and abort the
    process, whose run has succeeded (https://github.com/pytorch/pytorch/pull/179291); NCCL's warns that it leaks.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
