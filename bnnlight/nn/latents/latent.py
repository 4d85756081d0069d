"""Latent weights: trainable factors in, the real weight W̃ of a layer out.

A latent is made from a dense weight, which it decomposes, and rebuilds that weight from its factors each
time it is called. Anything that maps a dense weight to such a module can be handed to a layer, a backbone or
:func:`bnnlight.nn.factorize`; to add a format, write a subclass of :class:`Latent` and name it in the config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bnnlight.nn.compute.product import factor_dtype
from bnnlight.nn.latents.unfolding import Triangle, float64, triangle, unfold_all

_KERNEL_MODES = ("kernel",), ("kernel height", "kernel width"), ("kernel depth", "kernel height", "kernel width")


def mode_names(num_modes: int) -> tuple[str, ...]:
    """Names of a weight's modes: output channels, input channels, then the kernel's."""
    kernel = () if num_modes == 2 else _KERNEL_MODES[num_modes - 3]
    return ("output channels", "input channels", *kernel)


class Latent(nn.Module):
    """Base of all latents: the shape of the weight and each parameter's relative learning rate.

    Args:
        shape: of the weight that :meth:`forward` returns, ``(O, I, *kernel)``.
        products: type of the factors of large products. With ``bfloat16`` those take about half the time on
            processors with AVX512_BF16 or AMX and on GPUs. Parameters, sums and gradients stay as they are, but each
            product comes out rounded to 8 bits, so weights near zero may get a different sign than with ``float32``.
            Not part of the ``state_dict``: measure and export a network with the option it was trained with.

    Attributes:
        shape: as given.
        factor_dtype: what ``products`` stands for, as :func:`bnnlight.nn.compute.product.product` takes it.
        lr_scales: parameter name → factor on the optimizer's learning rate.
    """

    def __init__(self, shape: torch.Size, products: Literal["float32", "bfloat16"] = "float32") -> None:
        super().__init__()
        self.shape = torch.Size(shape)
        self.factor_dtype = factor_dtype(products, type(self).__name__)
        self.lr_scales: dict[str, float] = {}

    def forward(self) -> Tensor:
        """The real weight W̃ of shape ``self.shape``, differentiable with respect to the factors."""
        raise NotImplementedError

    @property
    def ranks(self) -> tuple[int, ...]:
        """Nominal rank of each mode of the decomposition; empty where nothing is decomposed."""
        return ()

    def unfoldings(self, triangle_of: Triangle = triangle) -> list[Tensor]:
        """For each mode of W̃ a matrix with the same nonzero singular values as W̃'s unfolding along it.

        As small as the parameters allow, so that the smaller of its two sides is the largest rank that the
        unfolding can have. W̃'s own unfoldings here; decompositions return less.

        Args:
            triangle_of: maps a factor to the triangle of its QR decomposition.

        Returns:
            One matrix per mode, float64, without gradient.
        """
        with torch.no_grad():
            return unfold_all(float64(self()))

    def named_factors(self) -> dict[str, Tensor]:
        """Name → matrix of each factor, without gradient and sharing its memory; empty where there is none."""
        return {}

    @staticmethod
    def couple(latents: Sequence[Latent], weights: Sequence[Tensor]) -> None:
        """Called once for all latents of one class and shape in a network, with their dense weights.

        Does nothing here: the layers of a network are independent. :class:`bnnlight.nn.Holistic` overrides it.
        """

    def extra_repr(self) -> str:
        text = "×".join(map(str, self.shape))
        return f"{text}, ranks={self.ranks}" if self.ranks else text

    def _scale_rates(self, weight: Tensor, factors: Sequence[str], factor_lr: float, carriers: Sequence[str]) -> None:
        """Sets ``lr_scales`` so that one step changes W̃ alike through every parameter.

        An optimizer such as Adam moves each entry by about its learning rate, whatever the entry's size. A
        parameter whose entries are c times as large as the weight's therefore gets c times the rate; then a
        step changes it, and with it W̃, by the same fraction. ``factor_lr`` is taken on top of that for
        ``factors`` and not for ``carriers``, the parameters that take a dense weight's place.
        """
        size = _rms(weight)
        for names, rate in ((factors, factor_lr), (carriers, 1.0)):
            for name in names:
                ratio = _rms(self.get_parameter(name)) / size if size > 0 else 1.0
                self.lr_scales[name] = rate * (ratio or 1.0)


LatentFactory = Callable[[Tensor], Latent]
"""Makes a latent from a dense weight ``(O, I, *kernel)``: a subclass of :class:`Latent`, or a partial of one."""


def _rms(x: Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt())


def check_factor_lr(factor_lr: float) -> None:
    """Raises ValueError where a factor's relative learning rate is negative or not finite."""
    if not (math.isfinite(factor_lr) and factor_lr >= 0):
        raise ValueError(f"factor_lr is {factor_lr}: give a finite number of at least 0")


def check_start(start: str, choices: Sequence[str]) -> None:
    """Raises ValueError where ``start`` is not one of the choices."""
    if start not in choices:
        raise ValueError(f"unknown start {start!r}: choose one of {', '.join(choices)}")


class Dense(Latent):
    """W̃ = W, stored as it is: the baseline of all earlier work, where every filter is independent.

    Args:
        weight: ``(O, I, *kernel)``, the initial value.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape)
        self.weight = nn.Parameter(weight.detach().clone())
        self.lr_scales = {"weight": 1.0}

    def forward(self) -> Tensor:
        return self.weight
