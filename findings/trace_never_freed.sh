#!/usr/bin/env bash
# What is left of a TorchScript trace that is dropped, with torch 2.14.1 on Linux.
#
# torch: a trace is never freed. Of every torch.jit.trace that is made, called three times and dropped, its graph and
# its plans stay in memory; of one of a module its weights stay as well. A service that opens models again and again
# grows. Calling one trace again and again takes no more.
#
# Exits 0 while this is so. Usage: findings/trace_never_freed.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import gc

import torch
from torch import nn

print("torch", torch.__version__)
x = torch.zeros(1, 64)


def resident_mb():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def network():
    return nn.Sequential(*(layer for _ in range(100) for layer in (nn.Linear(64, 64), nn.ReLU()))).eval()


def without_weights():
    made = network()
    weights = dict(made.named_parameters())

    def run(x, *flat):
        rest = iter(flat)
        for _ in range(len(flat) // 2):
            x = torch.relu(torch.nn.functional.linear(x, next(rest), next(rest)))
        return x

    given = (x, *weights.values())
    return torch.jit.trace(run, given, check_trace=False), given


def growth(make, number=20):
    """MB that each turn leaves behind."""
    make()
    before = resident_mb()
    for _ in range(number):
        make()
    return (resident_mb() - before) / number


def three_calls(run, given):
    for _ in range(3):
        run(*given)


def of_module():
    three_calls(torch.jit.trace(network(), x, check_trace=False), (x,))


def plain():
    three_calls(network(), (x,))


with torch.no_grad():
    weights = sum(p.nbytes for p in network().parameters()) / 1e6
    module, function, nothing = growth(of_module), growth(lambda: three_calls(*without_weights())), growth(plain)
    kept = without_weights()
    again = growth(lambda: three_calls(*kept))
print(f"weights of the network: {weights:.1f} MB")
print(f"left of each dropped trace of the module {module:.1f} MB, of a function of its weights {function:.1f} MB,")
print(f"of the module without a trace {nothing:.2f} MB, of three more calls of one trace {again:.2f} MB")
assert module > weights and function > 0.3
assert nothing < 0.1 and again < 0.1
PYTHON
