"""A small network to look at, a logger that remembers, and training with both."""

import copy

import lightning
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnnlight.nn import BinaryConv2d, BinaryLinear, Dense, factorize, named_binary_layers


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Network(lightning.LightningModule):
    """Three binary convolutions, two of one shape, and a binary linear layer; trained at a high rate."""

    def __init__(self, latent=Dense, scale="channel"):
        super().__init__()
        self.body = nn.Sequential(
            BinaryConv2d(2, 6, 3, scale=scale, output_size=(2, 2)),
            BinaryConv2d(6, 6, 3, padding=1, scale=scale, output_size=(2, 2)),
            BinaryConv2d(6, 6, 3, padding=1, scale=scale, output_size=(2, 2)),
            nn.Flatten(),
        )
        self.head = BinaryLinear(24, 3, scale=scale)
        factorize(self, latent)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.head(self.body(batch[0])), batch[1])

    def validation_step(self, batch, batch_idx):
        self.head(self.body(1000 * batch[0].abs()))  # nothing like the inputs of training

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


class Logged(DummyLogger):
    """Keeps by step what callbacks log; ``at`` is step → key → value."""

    def __init__(self):
        super().__init__()
        self.at = {}

    def log_metrics(self, metrics, step=None):
        found = {key: value for key, value in metrics.items() if key != "epoch"}
        assert not found.keys() & self.at.get(step, {}).keys(), "logged twice at one step"
        if found:
            self.at.setdefault(step, {}).update(found)


class Copies(lightning.Callback):
    """Keeps a copy of every binary layer in double precision; ``at`` is step → path → layer."""

    def __init__(self):
        self.at = {}

    def on_train_start(self, trainer, pl_module):
        found = named_binary_layers(pl_module)
        self.at[trainer.global_step] = {name: copy.deepcopy(layer).double() for name, layer in found}

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.on_train_start(trainer, pl_module)


def loader(num_batches=6):
    generator = torch.Generator().manual_seed(3)
    images, labels = torch.randn(4 * num_batches, 2, 4, 4, generator=generator), torch.arange(4 * num_batches) % 3
    return DataLoader(TensorDataset(images, labels), batch_size=4)


@pytest.fixture
def network():
    return Network


@pytest.fixture
def logger():
    return Logged


@pytest.fixture
def fit():
    """Train with callbacks for some steps; return the trainer, what was logged, and copies of the layers."""

    def run(*callbacks, network=None, ckpt_path=None, loggers=(), data=None, val_data=None, **options):
        logged, copies = Logged(), Copies()
        trainer = lightning.Trainer(
            accelerator="cpu",
            logger=[logged, *loggers],
            callbacks=[*callbacks, copies],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            max_epochs=-1,
            **options,
        )
        trainer.fit(network or Network(), data or loader(), val_data, ckpt_path=ckpt_path)
        return trainer, logged.at, copies.at

    return run
