"""Latent weights: the real weight W̃ behind a binary one, rebuilt from what is trained.

`latent.py` has `Latent`, the contract, and `Dense`, the baseline. `matrix.py`, `tucker.py` and `holistic.py` are the
decompositions of the paper, `cp.py` and `tensor_train.py` two more. `rotated.py` trains a dense weight in a basis that
is turned at random, by the fast orthogonal transform of `hadamard.py`. `rank.py` goes from the rank that a user writes
to the rank of each mode; `unfolding.py` makes small matrices with the singular values of a weight's unfoldings.
"""

from bnnlight.nn.latents.cp import CP
from bnnlight.nn.latents.holistic import Holistic
from bnnlight.nn.latents.latent import Dense, Latent, LatentFactory
from bnnlight.nn.latents.matrix import Matrix
from bnnlight.nn.latents.rank import Rank
from bnnlight.nn.latents.rotated import Rotated
from bnnlight.nn.latents.tensor_train import TensorTrain
from bnnlight.nn.latents.tucker import Tucker

__all__ = ["CP", "Dense", "Holistic", "Latent", "LatentFactory", "Matrix", "Rank", "Rotated", "TensorTrain", "Tucker"]
