"""Parts between a latent weight and its sign."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlight.nn.torch_internals import transformed


class WeightPart(nn.Module):
    """Base of what stands between the latent weight and its sign: W̃ in, W̃' out, of the same shape and dtype.

    A layer computes B = sign(W̃'). Its α starts from W̃, and an analytic α is that of W̃ at each step, so that a part
    does not change how large the layer's outputs are.

    Args:
        weight: ``(O, I, *kernel)``, the initial latent weight.

    Attributes:
        sets_threshold: whether it decides which value of W̃ becomes zero. Only one of a layer's parts may do so.
        keeps_signs: whether each entry keeps its sign. Such a part is applied last.
    """

    sets_threshold = False
    keeps_signs = False

    def __init__(self, weight: Tensor) -> None:
        super().__init__()

    def forward(self, weight: Tensor) -> Tensor:
        """W̃' ``(O, I, *kernel)``, differentiable."""
        raise NotImplementedError

    def renew(self, weight: Tensor, sweeps: int) -> None:
        """Called between epochs by :class:`bnnlight.callbacks.Turn` with the weight that the part is given."""


WeightPartFactory = Callable[[Tensor], WeightPart]
"""Makes a part from a dense weight: a subclass of :class:`WeightPart`, or a partial of one."""


class WeightParts(nn.ModuleList):
    """The parts of one layer, each applied to what the one before returns.

    Args:
        parts: in their order; those that keep signs, such as :class:`Clamped`, are applied last wherever they are
            listed, so that the sign's threshold does not depend on them.

    Raises:
        ValueError: more than one of them sets the sign's threshold.
    """

    def __init__(self, parts: Sequence[WeightPart]) -> None:
        super().__init__(sorted(parts, key=lambda part: part.keeps_signs))
        check_thresholds("weight_parts", parts)

    def forward(self, weight: Tensor) -> Tensor:
        for part in self:
            weight = part(weight)
        return weight

    @torch.no_grad()
    def renew(self, weight: Tensor, sweeps: int) -> None:
        """Lets each part look at the weight that it is given; see :meth:`WeightPart.renew`."""
        for part in self:
            part.renew(weight, sweeps)
            weight = part(weight)


def check_thresholds(option: str, parts: Sequence[nn.Module]) -> None:
    """Raises ValueError where two parts both set the sign's threshold."""
    setting = [type(part).__name__ for part in parts if part.sets_threshold]
    if len(setting) > 1:
        raise ValueError(f"{option}: {setting[0]} and {setting[1]} both set the sign's threshold: leave one out")


_EPS = 1e-12
"""Added to a filter's variance, so that one of equal weights becomes zeros and not noise."""


class Standardized(WeightPart):
    """W̃'_o = d · (W̃_o − mean(W̃_o)) / std(W̃_o) for each filter o, with the gradients of both.

    Each filter's sign then splits at its mean, so that about as many weights are +1 as −1, and its entries are of one
    size for the straight-through gradient, whatever the latent's.

    Args:
        weight: ``(O, I, *kernel)``.
        deviation: d, the standard deviation of the result. IR-Net uses 1; ReCU uses 2√2, with which it measures the
            clamp of :class:`Clamped`.

    Raises:
        ValueError: the deviation is not a finite number above 0, or a filter has a single weight.

    Source: Libra parameter binarization of IR-Net, Qin et al., CVPR 2020, https://arxiv.org/abs/1909.10788.
    """

    sets_threshold = True

    def __init__(self, weight: Tensor, deviation: float = 1.0) -> None:
        super().__init__(weight)
        if not (math.isfinite(deviation) and deviation > 0):
            raise ValueError(f"deviation of Standardized is {deviation}: give a finite number above 0")
        size = weight[0].numel()
        if size < 2:
            raise ValueError("Standardized: each filter has a single weight, which has no deviation: leave it out")
        # layer_norm divides by the root of the mean square, without Bessel's correction
        self.deviation, self._factor = deviation, deviation * math.sqrt((size - 1) / size)

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight if weight.is_contiguous() else weight.movedim(1, -1)
        gain = rows.new_full(rows.shape[1:], self._factor)
        result = F.layer_norm(rows, rows.shape[1:], gain, eps=_EPS)
        return result if rows is weight else result.movedim(-1, 1)

    def extra_repr(self) -> str:
        return f"deviation={self.deviation}"


class Balanced(WeightPart):
    """W̃'_o = W̃_o − median(W̃_o) for each filter o: exactly half of its binary weights are +1.

    The median is the upper one of the two in the middle, and of an odd number the one in the middle, which is +1.
    Weights of one filter that are equal have one sign. The median has no gradient.

    Args:
        weight: ``(O, I, *kernel)``.

    Sources: SiMaN, Lin et al. 2021, https://arxiv.org/abs/2102.07981; Bi-half Net, Li & van Gemert, AAAI 2021,
    https://arxiv.org/abs/2012.12334.
    """

    sets_threshold = True

    def forward(self, weight: Tensor) -> Tensor:
        return weight - _upper_median(weight.detach()).view(-1, *[1] * (weight.ndim - 1))


@torch.no_grad()
def _upper_median(weight: Tensor) -> Tensor:
    """``(O,)``: of each filter the ⌈(n+1)/2⌉-th smallest of n weights."""
    rows = (weight if weight.is_contiguous() else weight.movedim(1, -1)).flatten(1)
    plain = rows.device.type == "cpu" and rows.dtype == torch.float32
    if not plain or transformed() or torch.compiler.is_compiling():
        return -(-rows).median(1).values
    # the same number ten times as quickly
    middle = rows.shape[1] // 2
    return torch.from_numpy(np.partition(rows.numpy(), middle, axis=1)[:, middle].copy())


class Clamped(WeightPart):
    """W̃' = clamp(W̃, −Q, Q) with Q = −mean|W̃| · ln(2 − 2τ), the τ-quantile of a layer's weights.

    It is the quantile of the Laplace distribution with that mean size, whose quantile of 1 − τ is −Q. Signs stay as
    they are. Weights beyond Q have no gradient, and Q has none. ReCU standardizes the weights before, and raises τ from
    0.85 to 0.99: callback :class:`bnnlight.callbacks.Loosen`. In a config::

        weight_parts:
          - {class_path: bnnlight.nn.Standardized, init_args: {deviation: 2.8284271247461903}}
          - {class_path: bnnlight.nn.Clamped, init_args: {tau: 0.85}}

    Args:
        weight: ``(O, I, *kernel)``.
        tau: τ, above 0.5 and at most 1, with which nothing is clamped. Not part of the ``state_dict``.

    Raises:
        ValueError: τ is out of range.

    Source: ReCU, Xu et al., ICCV 2021, https://arxiv.org/abs/2103.12369.
    """

    keeps_signs = True

    def __init__(self, weight: Tensor, tau: float = 0.85) -> None:
        super().__init__(weight)
        # Q in mean sizes of weights. A tensor, for which a compiled network is not compiled anew whenever τ moves.
        self.register_buffer("mean_sizes", weight.new_zeros(()), persistent=False)
        self.tau = tau

    @property
    def tau(self) -> float:
        """τ; may be set at any time."""
        return self._tau

    @tau.setter
    def tau(self, tau: float) -> None:
        self._tau = check_tau(tau, "tau of Clamped")
        # all weights lie within any number's largest one, which no mean of sizes makes infinite times zero
        self.mean_sizes.fill_(torch.finfo(self.mean_sizes.dtype).max if tau == 1 else -math.log(2 - 2 * tau))

    def forward(self, weight: Tensor) -> Tensor:
        bound = weight.detach().abs().mean() * self.mean_sizes
        return weight.clamp(-bound, bound)

    def extra_repr(self) -> str:
        return f"tau={self.tau}"


def check_tau(tau: float, name: str) -> float:
    """τ itself; ValueError where it is not above 0.5 and at most 1."""
    if not 0.5 < tau <= 1:
        raise ValueError(f"{name} is {tau}: give a number above 0.5 and at most 1")
    return tau
