#!/usr/bin/env bash
# A compiled step of AdamW on float64 parameters, torch 2.14.1.
#
# torch: its corrections, 1 − β^t, are Python's numbers in a step that is not compiled, and float32 in one that is, since
# the counter of steps is a float32 tensor. So float64 parameters get steps that are right to some 1e-7 of their size, and
# no more. SGD's are the same to the last bit. A comparison with a run that is not compiled cannot be closer than that.
#
# Exits 0 while this is so. Usage: findings/torch_compile_adam_float64.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.0
cd "$folder"
cat > steps.py <<'PYTHON'
from functools import partial

import torch
from torch import nn

print("torch", torch.__version__)
makers = {"AdamW": partial(torch.optim.AdamW, lr=0.01), "SGD": partial(torch.optim.SGD, lr=0.01, momentum=0.9)}
apart = {}
for name, make in makers.items():
    ends = []
    for compiled in (False, True):
        torch.compiler.reset()
        weight = nn.Parameter(torch.linspace(-1, 1, 64, dtype=torch.float64))
        optimizer = make([weight])
        step = torch.compile(optimizer.step, backend="aot_eager") if compiled else optimizer.step
        for i in range(5):
            weight.grad = torch.sin(3 * weight.detach() + i)
            step()
        ends.append(weight.detach().clone())
    apart[name] = float((ends[0] - ends[1]).abs().max())
    print(f"{name}, after five steps of some 0.01 in float64: {apart[name]:.1e} apart")
assert 1e-9 < apart["AdamW"] < 1e-5 and apart["SGD"] == 0
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore steps.py
