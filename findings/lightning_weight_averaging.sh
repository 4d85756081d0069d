#!/usr/bin/env bash
# Lightning 2.6.6, WeightAveraging and EMAWeightAveraging: three things that a user of averaged weights would not guess.
#
# 1. `trainer.test(ckpt_path=…)` behind `trainer.fit` with the same trainer measures the trained weights, not the averages
#    that the checkpoint's `state_dict` holds; a trainer of its own measures the averages.
# 2. With `update_starting_at_step`, validation (and every checkpoint's `state_dict`) is the untrained network until then.
# 3. Buffers of whole numbers are averaged too: `num_batches_tracked` stays at 1.
#
# usage: lightning_weight_averaging.sh     installs into a temporary folder (5.5 GB with PyTorch); fails if any has changed
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check lightning==2.6.6 torch==2.14.1 numpy
cd "$room"
"$room/venv/bin/python" - <<'P'
import logging
import warnings

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        return (self.net(batch[0]) - 1).square().mean()

    def validation_step(self, batch, batch_idx):
        self.seen.append(self.net[1].bias.item())

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(**options):
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randn(32, 2)), batch_size=4)
    model = Model()
    first = model.net[1].bias.item()
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, num_sanity_val_steps=0, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=True, callbacks=[EMAWeightAveraging(**options)],
    )
    trainer.fit(model, loader, loader)
    return model, trainer, loader, first


print("lightning", L.__version__, "torch", torch.__version__)
model, trainer, loader, _ = train(decay=0.9)
path = trainer.checkpoint_callback.best_model_path
saved = torch.load(path, weights_only=True)
average, trained = (saved[key]["net.1.bias"].item() for key in ("state_dict", "current_model_state"))
trainer.test(model, loader, ckpt_path=path, verbose=False)
same, other = model.seen[-1], Model()
L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(other, loader, ckpt_path=path, verbose=False)
print(f"1. average {average:.4f}, trained {trained:.4f}; tested by the same trainer {same:.4f}, by another {other.seen[-1]:.4f}")
count = saved["state_dict"]["net.0.num_batches_tracked"].item()
late, _, _, first = train(decay=0.9, update_starting_at_step=1000)
print(f"2. before training {first:.4f}; validated after eight steps {late.seen[0]:.4f}")
print(f"3. num_batches_tracked after eight batches: {count}")
expected = same == trained != average and other.seen[-1] == average and late.seen[0] == first and count == 1
raise SystemExit(0 if expected else "the behaviour has changed")
P
