"""Trains on two processes with `Activations` and writes what was logged, and what each rank's layers saw.

python two_ranks.py FOLDER
"""

import json
import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnnlight.callbacks import Activations
from bnnlight.nn import BinaryLinear, named_binary_layers


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (BinaryLinear(6, 6) for _ in range(3))
        self.seen = {}

    def on_fit_start(self):
        for name, layer in named_binary_layers(self):
            layer.register_forward_pre_hook(lambda _, inputs, name=name: self.keep(name, inputs[0]))

    def keep(self, name, x):
        self.seen.setdefault(self.global_step + 1, {}).setdefault(name, []).append(x.detach().clone())

    def training_step(self, batch, batch_idx):
        x = self.second(self.first(batch[0]))
        return (self.third(x) if self.global_rank else x).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Logged(Logger):
    name, version = "", ""

    def __init__(self):
        super().__init__()
        self.at = {}

    def log_hyperparams(self, *args, **kwargs):
        pass

    @rank_zero_only
    def log_metrics(self, metrics, step=None):
        self.at.setdefault(step, {}).update({k: v for k, v in metrics.items() if k.startswith("bnn/")})


class Writer(lightning.Callback):
    """Counts reductions, and writes all at the end."""

    def __init__(self, folder):
        self.folder, self.num_reductions = folder, 0

    def on_train_start(self, trainer, pl_module):
        reduce = torch.distributed.all_reduce

        def counted(*args, **kwargs):
            self.num_reductions += 1
            return reduce(*args, **kwargs)

        torch.distributed.all_reduce = counted

    def on_train_end(self, trainer, pl_module):
        torch.save(pl_module.seen, self.folder / f"rank{trainer.global_rank}.pt")
        if trainer.is_global_zero:
            record = {"logged": trainer.logger.at, "num_reductions": self.num_reductions}
            (self.folder / "logged.json").write_text(json.dumps(record))

    def teardown(self, trainer, pl_module, stage):
        # or its threads may abort a process that is shutting down
        torch.distributed.destroy_process_group()


def main():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(40, 6) + nn.functional.one_hot(torch.arange(40) % 6, 6))
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn_find_unused_parameters_true",
        max_steps=4,
        accumulate_grad_batches=2,
        logger=Logged(),
        callbacks=[Activations(interval=2), Writer(Path(sys.argv[1]))],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Network(), DataLoader(data, batch_size=4))


if __name__ == "__main__":
    main()
