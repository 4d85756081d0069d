"""Trains on two processes, layer by layer and with frozen signs, and writes what each rank had: masks and weights.

python two_ranks_layer_by_layer.py FOLDER
"""

import sys
from pathlib import Path

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnnlight.callbacks import FreezeSigns, LayerByLayer
from bnnlight.nn import BinaryLinear, named_binary_layers
from bnnlight.optim import SOAP, parameter_groups
from bnnlight.tasks import Mixing


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(BinaryLinear(6, 6) for _ in range(3)), nn.Linear(6, 6))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def configure_optimizers(self):
        groups = [{"params": list(g.parameters), "name": g.name} for g in parameter_groups(self)]
        return SOAP(groups, lr=0.05, share=True)


class Writer(lightning.Callback):
    def __init__(self, folder):
        self.folder, self.rows = folder, {}

    def on_before_backward(self, trainer, pl_module, loss):
        layers = [layer for _, layer in named_binary_layers(pl_module)]
        masks = [layer.stage.mask((6, 6), loss.device).clone() for layer in layers]
        weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        mixing = Mixing(mixup=1.0)
        mixed = mixing(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), 2, 0, trainer.global_step)[1]
        self.rows[trainer.global_step] = {"masks": masks, "weights": weights, "mixed": mixed}

    def on_train_end(self, trainer, pl_module):
        self.rows[trainer.global_step] = {"weights": {k: v.clone() for k, v in pl_module.state_dict().items()}}
        torch.save(self.rows, self.folder / f"rank{trainer.global_rank}.pt")

    def teardown(self, trainer, pl_module, stage):
        # or its threads may abort a process that is shutting down
        torch.distributed.destroy_process_group()


class OwnSeed(lightning.Callback):
    """Each process draws its own random numbers, as without a seed."""

    def setup(self, trainer, pl_module, stage):
        torch.manual_seed(100 + trainer.global_rank)


def main():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(64, 6), torch.arange(64) % 6)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        # which waits for a gradient of every parameter
        strategy="ddp_spawn",
        max_steps=8,
        logger=False,
        callbacks=[
            OwnSeed(),
            LayerByLayer(0.0, 0.5, refresh=0.1, straight_through=False),
            FreezeSigns(share=0.75),
            Writer(Path(sys.argv[1])),
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Network(), DataLoader(data, batch_size=4))


if __name__ == "__main__":
    main()
