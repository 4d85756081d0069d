"""Optimizers for latent weights, beside torch's own.

| file | what is in it |
|---|---|
| `soap.py` | `SOAP`: Adam in the eigenbases of the gradients' covariances |
| `muon.py` | `Muon`: orthogonalized momentum, a step that is equally long in every direction |
| `bop.py` | `Bop`, which flips weights: the baseline without latent weights |
| `groups.py` | `parameter_groups`: which parameters share a rate and a weight decay |
| `as_matrices.py` | `AsMatrices`: any optimizer that takes only matrices, such as `torch.optim.Muon` |
| `adamw_inside.py` | `AdamWInside`, their base: steps matrices in their own way, vectors by AdamW |
| `pieces.py` | weights cut into blocks, each small enough for an eigenbasis |
| `stack.py` | parameters of one shape, stepped as one |
| `sharing.py` | matrices divided among the processes of a run |
| `modes.py` | products and covariances along the modes of a tensor |
| `eigenbasis.py` | eigenbases of covariances that change slowly |
| `products.py` | products of stacks of matrices |
| `polar.py` | the orthogonal matrix nearest to a matrix, by products alone |
"""

from bnnlight.optim.as_matrices import AsMatrices
from bnnlight.optim.bop import Bop
from bnnlight.optim.groups import ParameterGroup, parameter_groups
from bnnlight.optim.muon import Muon
from bnnlight.optim.soap import SOAP

__all__ = ["SOAP", "AsMatrices", "Bop", "Muon", "ParameterGroup", "parameter_groups"]
