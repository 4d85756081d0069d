#!/usr/bin/env bash
# The fused AdamW of a CPU where tensors of one shape lie in memory in different ways, with torch 2.14.1.
#
# torch: AdamW(fused=True) on a CPU pairs the entries of a weight, its gradient and its moments by their places in memory.
# Where one of them is channels-last and another is not, entries are moved by gradients of others, without a word. That
# is so for a gradient set by hand, and for moments of a checkpoint that was written by a network in the other memory
# format: load_state_dict keeps the layout of what it is given. Without fused, all is right.
#
# Exits 0 while this is so. Usage: findings/fused_adamw_by_place.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import copy

import torch
from torch import nn

print("torch", torch.__version__)
torch.manual_seed(0)
start, first, second = torch.randn(3, 4, 3, 2, 2)


def optimizer_of(weight, fused):
    return torch.optim.AdamW([weight], lr=0.1, fused=fused, foreach=False)


def by_hand(layout, fused):
    """One step with a contiguous gradient."""
    weight = nn.Parameter(start.clone(memory_format=layout))
    weight.grad = first.clone()
    optimizer_of(weight, fused).step()
    return weight.detach()


def resumed(layout, fused):
    """A step in contiguous memory; the state goes to a weight of the layout, whose gradient has it too."""
    weight = nn.Parameter(start.clone())
    optimizer = optimizer_of(weight, fused)
    weight.grad = first.clone()
    optimizer.step()
    other = nn.Parameter(weight.detach().clone(memory_format=layout))
    made = optimizer_of(other, fused)
    made.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.grad = second.clone(memory_format=layout)
    made.step()
    return other.detach()


for case in (by_hand, resumed):
    expected = case(torch.contiguous_format, False)
    apart = {
        (layout, fused): float((case(layout, fused) - expected).abs().max())
        for layout in (torch.contiguous_format, torch.channels_last)
        for fused in (False, True)
    }
    for (layout, fused), difference in apart.items():
        print(f"{case.__name__}, weight {layout}, fused {fused}: at most {difference:.7f} from the right weight")
    wrong = apart.pop((torch.channels_last, True))
    assert wrong > 0.01 and max(apart.values()) < 1e-5
PYTHON
