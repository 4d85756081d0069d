"""What a run of several processes needs beyond DDP: batch norm over all of them, and seeds of their own."""

from __future__ import annotations

import random

import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from bnnlight.data.sampling import run_seed
from bnnlight.nn.sync_norm import desynchronize, synchronize


class SyncBatchNormAnywhere(TorchSyncBatchNorm):
    """Makes ``trainer.sync_batchnorm`` work on CPUs, where torch's layer refuses; on GPUs torch's layer is taken."""

    def apply(self, model: nn.Module) -> nn.Module:
        return synchronize(model) if _on_cpu(model) else super().apply(model)

    def revert(self, model: nn.Module) -> nn.Module:
        return super().revert(desynchronize(model))


def _on_cpu(task: L.LightningModule) -> bool:
    return task.trainer.strategy.root_device.type == "cpu"


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
