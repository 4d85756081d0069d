#!/usr/bin/env bash
# Parameters that are set free in mid-training, with torch 2.14.1 and lightning 2.6.6.
#
# 1. torch: after Optimizer.add_param_group, which its documentation means for training that progresses, LambdaLR made
#    before cannot step any more (ValueError of zip); earlier versions left the new group as it was.
# 2. lightning: BaseFinetuning.unfreeze_and_add_param_group leaves out a parameter whose values equal those of another one
#    of the same shape, such as two biases of zeros: it needs a gradient and is never trained.
# 3. lightning: a run with BackboneFinetuning that goes on behind the unfreezing freezes the backbone anew, restores the
#    optimizer's groups and does not set the backbone free: it is not trained any more, without a word.
#
# Exits 0 while all three are so. Usage: findings/finetuning_groups.sh
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
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning
from torch import nn

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
print("torch", version("torch"), "lightning", version("lightning"))

first, second = nn.Linear(2, 2), nn.Linear(3, 3)
optimizer = torch.optim.SGD(first.parameters(), lr=0.1)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
optimizer.add_param_group({"params": second.parameters()})
optimizer.step()
try:
    schedule.step()
    refuses = False
except ValueError as error:
    refuses = True
    print("1. LambdaLR.step after add_param_group: ValueError:", error)

first, second = nn.Linear(2, 2), nn.Linear(2, 2)
nn.init.zeros_(first.bias)
nn.init.zeros_(second.bias)
second.requires_grad_(False)
optimizer = torch.optim.SGD(first.parameters(), lr=0.1)
BaseFinetuning.unfreeze_and_add_param_group(second, optimizer)
held = [any(p is q for group in optimizer.param_groups for q in group["params"]) for p in second.parameters()]
print(f"2. of weight and bias of the second layer the optimizer has: {held}; they need gradients:", end=" ")
print([p.requires_grad for p in second.parameters()])


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        return self.head(self.backbone(batch[0])).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


def fit(num_epochs, checkpoint=None):
    torch.manual_seed(0)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 4)), batch_size=4)
    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1)
    trainer = L.Trainer(max_epochs=num_epochs, accelerator="cpu", callbacks=[finetuning], **options)
    net = Net()
    trainer.fit(net, data, ckpt_path=checkpoint)
    return trainer, net


trainer, net = fit(2)
trainer.save_checkpoint("two.ckpt")
before = net.backbone.weight.detach().clone()
free = net.backbone.weight.requires_grad
_, net = fit(3, "two.ckpt")
after = net.backbone.weight
moved = not torch.equal(before, after)
print(f"3. backbone needs gradients: {free} in the run, {after.requires_grad} where it goes on; moved then: {moved}")
raise SystemExit(not (refuses and held == [True, False] and free and not after.requires_grad and not moved))
PYTHON
