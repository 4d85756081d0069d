#!/usr/bin/env bash
# Batch norm within torch.utils.checkpoint, as it is and compiled, torch 2.14.1.
#
# torch: one training step of the same code counts two batches and updates the running statistics twice where it is not
# compiled, since the part is run again in the backward pass. Compiled with aot_eager it counts one batch. With the
# backend "eager", which is there to find out whether a compiler is to blame, the backward pass raises a RuntimeError: the
# counter of batches is kept for it and changed meanwhile. So a compiled run has other statistics than one that is not,
# and the backend for debugging fails where the others work.
#
# Exits 0 while this is so. Usage: findings/torch_compile_checkpoint_norm.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.0
cd "$folder"
cat > norm.py <<'PYTHON'
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def inner(self, x):
        return self.norm(self.conv(x)).relu()

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


print("torch", torch.__version__)
found = {}
for backend in (None, "aot_eager", "eager"):
    torch.manual_seed(0)
    torch.compiler.reset()
    part = Part()
    run = part if backend is None else torch.compile(part, backend=backend)
    try:
        run(torch.randn(4, 3, 8, 8)).square().sum().backward()
        found[backend] = int(part.norm.num_batches_tracked)
        print(f"{backend or 'not compiled'}: {found[backend]} batches, running mean {part.norm.running_mean.tolist()}")
    except RuntimeError as error:
        found[backend] = str(error)
        print(f"{backend}: RuntimeError: {str(error)[:110]}")
assert found[None] == 2 and found["aot_eager"] == 1
assert "modified by an inplace operation: [torch.LongTensor" in found["eager"]
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore norm.py
