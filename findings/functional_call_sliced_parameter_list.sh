#!/usr/bin/env bash
# Gradients through a sliced ParameterList under torch.func.functional_call, with torch 2.14.1.
#
# torch: a slice of a torch.nn.ParameterList, such as factors[1:], is a new ParameterList, which makes a Parameter of
# its own of every tensor that is none. functional_call hands tensors to the forward pass. A module that slices its list
# then computes the right value of them, but nothing flows back to them, without a word: grad gives zeros, backward
# leaves None, and jvp leaves out their part. list(factors)[1:] and single entries are right, and so is the slice where
# the tensors handed over are Parameters themselves.
#
# Exits 0 while this is so. Usage: findings/functional_call_sliced_parameter_list.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch import nn
from torch.func import functional_call, grad, jvp

print("torch", torch.__version__)


class Product(nn.Module):
    """The product of three factors, of which two are taken by ``rest``."""

    def __init__(self, rest):
        super().__init__()
        self.factors = nn.ParameterList(torch.tensor(value) for value in (1.0, 2.0, 3.0))
        self.rest = rest

    def forward(self):
        second, third = self.rest(self.factors)
        return self.factors[0] * second * third


def gradients(make, network):
    """Of the product of 10, 20 and 30 with respect to each, by backward()."""
    tensors = {f"factors.{i}": make(torch.tensor(value)) for i, value in enumerate((10.0, 20.0, 30.0))}
    functional_call(network, tensors, ()).backward()
    return [None if tensor.grad is None else tensor.grad.item() for tensor in tensors.values()]


ways = {
    "factors[1:]": lambda factors: factors[1:],
    "list(factors)[1:]": lambda factors: list(factors)[1:],
    "factors[1], factors[2]": lambda factors: (factors[1], factors[2]),
}
outcomes = {}
for name, rest in ways.items():
    network = Product(rest)
    tensors = {f"factors.{i}": torch.tensor(value) for i, value in enumerate((10.0, 20.0, 30.0))}
    ones = {key: torch.ones(()) for key in tensors}
    outcomes[name] = {
        "value": functional_call(network, tensors, ()).item(),
        "grad": [value.item() for value in grad(lambda t, n=network: functional_call(n, t, ()))(tensors).values()],
        "backward": gradients(lambda tensor: tensor.requires_grad_(), network),
        "backward to Parameters": gradients(nn.Parameter, network),
        "jvp with ones": jvp(lambda t, n=network: functional_call(n, t, ()), (tensors,), (ones,))[1].item(),
    }
    print(f"{name}: " + ", ".join(f"{what} {value}" for what, value in outcomes[name].items()))
right = [600.0, 300.0, 200.0]
expected = {"value": 6000.0, "grad": right, "backward": right, "backward to Parameters": right, "jvp with ones": 1100.0}
lost = {"grad": [600.0, 0.0, 0.0], "backward": [600.0, None, None], "jvp with ones": 600.0}
assert outcomes.pop("factors[1:]") == expected | lost
assert all(outcome == expected for outcome in outcomes.values())
PYTHON
