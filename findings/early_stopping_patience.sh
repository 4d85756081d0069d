#!/usr/bin/env bash
# EarlyStopping's patience in a run that goes on, with lightning 2.6.6 and torch 2.14.1.
#
# lightning: EarlyStopping keeps its patience in its state. A run that goes on from a checkpoint waits as long as it was
# told when the checkpoint was written, whatever patience the callback is made with now, without a word; min_delta, which
# stands beside it in the constructor, is taken from there.
#
# Exits 0 while this is so. Usage: findings/early_stopping_patience.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 lightning==2.6.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import logging
from importlib.metadata import version

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
print("torch", version("torch"), "lightning", version("lightning"))


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("never_better", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(patience, min_delta, ckpt_path=None):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(2, 1)))
    stopping = EarlyStopping("never_better", patience=patience, min_delta=min_delta)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(max_epochs=20, default_root_dir=".", callbacks=[stopping], **quiet)
    trainer.fit(Net(), data, data, ckpt_path=ckpt_path)
    return trainer, stopping


trainer, first = fit(patience=2, min_delta=0.0)
trainer.save_checkpoint("run.ckpt")
told, second = fit(patience=10, min_delta=0.5, ckpt_path="run.ckpt")
print(f"first run: patience {first.patience}, ended behind {trainer.current_epoch} epochs")
print(f"goes on with EarlyStopping(patience=10, min_delta=0.5): patience {second.patience}, min_delta", end=" ")
print(f"{abs(second.min_delta)}, ended behind {told.current_epoch} epochs")
assert (first.patience, trainer.current_epoch) == (2, 3)
assert (second.patience, abs(second.min_delta), told.current_epoch) == (2, 0.5, 4)
PYTHON
