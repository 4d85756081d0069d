"""`Rotated`: dense latent weights in another basis, turned at random and fixed."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnnlight.nn.compute.product import replaying
from bnnlight.nn.latents.hadamard import norm, transform
from bnnlight.nn.latents.latent import Latent
from bnnlight.nn.latents.unfolding import Triangle, float64, fold, triangle, unfold_all
from bnnlight.nn.torch_internals import transformed

_MODES = {"both": (True, True), "output": (True, False), "input": (False, True)}


class Rotated(Latent):
    """W̃ = R_O G R_I: a dense G, with the weight's channel modes turned by fixed random rotations.

    An optimizer such as Adam, which steps each entry by itself, then does so in a basis other than the weight's own.
    Nothing is compressed, and nothing but G is trained. With T the orthogonal transform of
    :mod:`bnnlight.nn.latents.hadamard` (Walsh-Hadamard where the width is a power of two) and D random signs on a
    diagonal,

        R_O = D_O T_O,    R_I = T_I D_I,    G = R_Oᵀ W R_Iᵀ at the start,

    so that W̃ starts as the dense weight, up to rounding. The signs are on W̃'s side: on G's they would change
    nothing, since Adam's steps follow a change of an entry's sign.

    Source of the randomized Hadamard transform T D: Tropp 2011, https://arxiv.org/abs/1011.1595.

    Args:
        weight: ``(O, I, *kernel)``, the initial value.
        modes: which channel modes are turned: ``both``, ``output`` or ``input``.
        seed: of the signs, which depend on it and on the weight's shape alone.
        block: the most neighboring channels of a mode that are mixed with each other, at least 2; None mixes all.
            A small one costs less time; :func:`bnnlight.nn.latents.hadamard.transform_factors` says what a width is
            cut into.
        products: ``bfloat16`` turns the weight and its gradient with factors of that type; see
            :class:`bnnlight.nn.Latent`. It saves a sixth of the time that the rotations take, less than a small block
            does. The start is computed as usual.

    Parameters:
        core G ``(O, I, *kernel)``.

    Buffers:
        output_signs ``(O,)``, input_signs ``(I,)``: ±1 as int8; None for a mode that is not turned. They are part of
        the ``state_dict``: a checkpoint then means the same weights whatever seed the network was made with.

    Raises:
        ValueError: unknown modes or products, or a seed or block that is not a whole number in its range.
    """

    def __init__(
        self,
        weight: Tensor,
        modes: Literal["both", "output", "input"] = "both",
        seed: int = 0,
        block: int | None = None,
        products: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(weight.shape, products)
        if modes not in _MODES:
            raise ValueError(f"unknown modes {modes!r}: choose one of {', '.join(_MODES)}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed is {seed!r}: give a whole number of at least 0")
        if block is not None and (isinstance(block, bool) or not isinstance(block, int) or block < 2):
            raise ValueError(f"block is {block!r}: give a whole number of at least 2, or null to mix all channels")
        self.modes, self.seed, self.block = modes, seed, block
        for dim, (name, turns) in enumerate(zip(("output_signs", "input_signs"), _MODES[modes], strict=True)):
            signs = _signs(weight.shape[dim], f"mode {dim} of {tuple(weight.shape)}, seed {seed}") if turns else None
            self.register_buffer(name, None if signs is None else signs.to(weight.device))
        turns = _Turns(self.output_signs, self.input_signs, block)
        self.core = nn.Parameter(turns.to_basis(weight.detach()).contiguous())
        # a rotation leaves the entries' mean square as it is
        self.lr_scales = {"core": 1.0}

    def unfoldings(self, triangle_of: Triangle = triangle) -> list[Tensor]:
        # a rotation of a mode changes no singular value
        return unfold_all(float64(self.core))

    def forward(self) -> Tensor:
        turns = _Turns(self.output_signs, self.input_signs, self.block, self.factor_dtype)
        return turns.from_basis(self.core) if transformed() else _Rotation.apply(self.core, turns)

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, modes={self.modes}, seed={self.seed}"
        return text if self.block is None else f"{text}, block={self.block}"


class _Rotation(torch.autograd.Function):
    """W̃ of G; its gradient goes the way back, and needs nothing that was computed on the way there."""

    @staticmethod
    def forward(ctx, core: Tensor, turns: _Turns) -> Tensor:
        ctx.turns = turns
        if replaying():
            return core.new_zeros(()).expand(core.shape)  # in no memory
        return turns.from_basis(core)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.turns.to_basis(grad), None


@dataclass(frozen=True)
class _Turns:
    """Both rotations of a weight.

    Attributes:
        output_signs, input_signs: ±1; None for a mode that is not turned.
        block: as :class:`Rotated` takes it.
        dtype: to which factors of T and what they are multiplied with are rounded; None: to none.
    """

    output_signs: Tensor | None
    input_signs: Tensor | None
    block: int | None
    dtype: torch.dtype | None = None

    def from_basis(self, core: Tensor) -> Tensor:
        """D_O T_O G T_I D_I for G and W̃ ``(O, I, *kernel)``; in channels-last memory."""
        rows = _rows(core)
        if self.dtype is None:
            rows = transform(rows, self._dims, self.block)
        else:
            rows = transform(rows.to(self.dtype), self._dims, self.block, normalized=False).to(core.dtype)
        return fold(rows.mul_(self._flips(rows)), core.shape)

    def to_basis(self, weight: Tensor) -> Tensor:
        """T_O D_O W̃ D_I T_I, the inverse of :meth:`from_basis`."""
        rows = _rows(weight)
        rows = (rows * self._flips(rows)).to(self.dtype or rows.dtype)
        rows = transform(rows, self._dims, self.block, overwrite=True, normalized=self.dtype is None)
        return fold(rows.to(weight.dtype), weight.shape)

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(dim for dim, signs in ((0, self.output_signs), (2, self.input_signs)) if signs is not None)

    def _flips(self, rows: Tensor) -> Tensor:
        """What to multiply ``(O, kernel, I)`` with: signs of both modes, and T's scale if that is left out of T.

        In half precision T without its scale is exact, for powers of two.
        """
        flips = rows.new_ones(())
        if self.dtype is not None:
            flips = flips / math.prod(norm(rows.shape[dim], self.block) for dim in self._dims)
        if self.output_signs is not None:
            flips = flips * self.output_signs.to(rows.dtype).view(-1, 1, 1)
        return flips if self.input_signs is None else flips * self.input_signs.to(rows.dtype)


def _rows(weight: Tensor) -> Tensor:
    """``(O, kernel, I)``, as convolutions of channels-last images have it in memory."""
    return weight.movedim(1, -1).contiguous().view(len(weight), -1, weight.shape[1])


def _signs(size: int, key: str) -> Tensor:
    """±1 as int8 ``(size,)`` from Python's own generator, whose numbers do not change with its version."""
    draw = random.Random(key).random
    return torch.tensor([1 if draw() < 0.5 else -1 for _ in range(size)], dtype=torch.int8)
