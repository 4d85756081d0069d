#!/usr/bin/env bash
# Eigenvectors of a float32 matrix with rows of zeros between others, with torch 2.14.1.
#
# torch: torch.linalg.eigh on a CPU gives NaN without a word for some symmetric positive semi-definite matrices of 128 × 128
# whose every ninth row and column alone has entries, and raises "failed to converge" for others. float64, numpy's eigh of
# the same float32 matrix, and torch's of the same entries moved together all give eigenvectors. A covariance of gradients is
# such a matrix where channels are dead, as in Shampoo and SOAP.
#
# Exits 0 while this is so. Usage: findings/eigh_with_zero_rows.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import torch

print("torch", version("torch"), "numpy", version("numpy"))


def outcome(matrix):
    try:
        return "good" if torch.linalg.eigh(matrix).eigenvectors.isfinite().all() else "NaN"
    except torch.linalg.LinAlgError:
        return "raised"


found = {"float32": [], "float64": [], "moved together": [], "numpy, float32": []}
for seed in range(200):
    part = torch.rand(14, 28, generator=torch.Generator().manual_seed(seed)) + 1
    apart, together = torch.zeros(128, 128), torch.zeros(128, 128)
    apart[:126:9, :126:9] = together[:14, :14] = part @ part.T
    found["float32"].append(outcome(apart))
    found["float64"].append(outcome(apart.double()))
    found["moved together"].append(outcome(together))
    found["numpy, float32"].append("good" if np.isfinite(np.linalg.eigh(apart.numpy()).eigenvectors).all() else "NaN")
for name, outcomes in found.items():
    print(f"{name}: " + ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("good", "NaN", "raised")))
assert found["float32"].count("NaN") > 0 and found["float32"].count("raised") > 0
assert all(set(outcomes) == {"good"} for name, outcomes in found.items() if name != "float32")
PYTHON
