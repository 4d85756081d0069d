"""Layers that are binary in part: a mask says which entries of weights and activations are signs already."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bnnlight.nn.binarize import Gradient, sign
from bnnlight.nn.compute.relaxed import relaxed_weight


class Mixed:
    """A layer's state on its way from real to binary, what stands as its ``stage``.

    With masks M and N, of which a share p of the entries is 1, and W̄_o = W̃_o / mean abs(W̃_o), the layer computes::

        weights       M ⊙ sign(W̃) + (1 − M) ⊙ W̄
        activations   N ⊙ sign(X) + (1 − N) ⊙ clip(X, −1, 1)

    W̄ is what the weights are in the stage ``binary_activations`` of :func:`bnnlight.nn.set_stage`. Its entries have
    mean size 1, so that α means the same for both kinds. They are not clipped: almost half of them lie beyond ±1.

    An entry has a number v between 0 and 1, drawn once, and is masked where (v + turn) mod 1 < p. So the mask grows
    with p; and as ``turn`` grows by r from step to step, a share r of the entries leaves the mask and as many others
    come in. The mask of weights has the weight's shape, that of activations a picture's, ``(I, H, W)``, for all
    pictures alike. Both follow from the seed, p and turn, so that they are the same in every process, and when
    activations are computed a second time in the backward pass.

    Args:
        seed: one or several numbers from 0, other ones for each layer.
        straight_through: whether masked entries get the layer's straight-through gradients; else they get none.

    Attributes:
        share: p, from 0 to 1.
        turn: any number.

    Source: StoMPP, Smith & Islam 2026, https://arxiv.org/abs/2601.22660.
    """

    def __init__(self, *seed: int, straight_through: bool = True) -> None:
        self.seed, self.straight_through = seed, straight_through
        self.share = self.turn = 0.0
        self._numbers: dict[tuple[int, ...], Tensor] = {}

    def weight(self, weight: Tensor, gradient: Gradient) -> Tensor:
        """What stands for sign(W̃), of W̃'s shape.

        Args:
            weight: ``(O, …)``, the real weight W̃.
            gradient: the straight-through gradient of masked entries.
        """
        return self._mix(sign(weight, gradient), relaxed_weight(weight), self.mask(weight.shape, weight.device))

    def input(self, x: Tensor, gradient: Gradient) -> Tensor:
        """What stands for sign(X), of X's shape.

        Args:
            x: ``(N, I, H, W)`` or ``(…, I)``.
            gradient: the straight-through gradient of masked entries.
        """
        shape = x.shape[1:] if x.ndim == 4 else x.shape[-1:]
        return self._mix(sign(x, gradient), x.clamp(-1, 1), self.mask(shape, x.device, of_weight=False))

    def mask(self, shape: tuple[int, ...], device: torch.device, of_weight: bool = True) -> Tensor:
        """Which entries are signs: bool, of that shape."""
        key = (int(of_weight), *shape)
        numbers = self._numbers.get(key)
        if numbers is None or numbers.device != device:
            drawn = np.random.default_rng([*self.seed, *key]).random(tuple(shape), dtype=np.float32)
            numbers = self._numbers[key] = torch.from_numpy(drawn).to(device)
        return (numbers + self.turn % 1).remainder_(1.0) < self.share

    def _mix(self, signs: Tensor, real: Tensor, mask: Tensor) -> Tensor:
        # without its gradient all of the tensor takes part in the backward pass nevertheless, with zeros, as
        # processes that train together wait for each other's gradients
        return torch.where(mask, signs if self.straight_through else signs.detach(), real)

    def __repr__(self) -> str:
        return f"Mixed(share={self.share:g})"
