"""A fast orthogonal transform of any length, in which every output depends on every input.

For a length n = 2^k · m it is T = H ⊗ … ⊗ H ⊗ C_a ⊗ C_b …: k times the Hadamard matrix H of two rows, then Hartley
matrices C of odd sizes whose product is m,

    H = 1/√2 [1 1; 1 −1],    (C_m)_jk = (cos 2πjk/m + sin 2πjk/m) / √m.

Both are orthogonal and symmetric, so that T = Tᵀ = T⁻¹; H is C_2. For n = 2^k it is the Walsh-Hadamard transform. No
entry of T is zero, and where m is one factor none is larger than √(2/n).

Source of C: Bracewell, Discrete Hartley transform, 1983, https://doi.org/10.1364/JOSA.73.001832.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bnnlight.nn.compute.product import full_precision, times_transpose
from bnnlight.nn.torch_internals import transformed

_ODD = 64
"""Odd prime factors are joined to one Hartley matrix up to this size: with fewer of them T's entries are more even."""


def transform_factors(n: int, block: int | None = None) -> tuple[int, ...]:
    """Sizes of the matrices whose Kronecker product is T, in their order: twos, then odd numbers.

    Args:
        n: length of the transform, at least 1.
        block: leaves the first of them out until the product is no larger, or one is left; None keeps all. T is then
            of that product's length, for each run of as many neighbors among the n.
    """
    twos, odd = 0, n
    while odd > 0 and odd % 2 == 0:
        twos, odd = twos + 1, odd // 2
    parts: list[int] = []
    prime = 3
    while odd > 1:
        prime = prime if prime * prime <= odd else odd
        if odd % prime:
            prime += 2
            continue
        odd //= prime
        if parts and parts[-1] * prime <= _ODD:
            parts[-1] *= prime
        else:
            parts.append(prime)
    factors = [2] * twos + parts
    while block is not None and len(factors) > 1 and math.prod(factors) > block:
        del factors[0]
    return tuple(factors)


def transform(
    x: Tensor, dims: tuple[int, ...], block: int | None = None, overwrite: bool = False, normalized: bool = True
) -> Tensor:
    """T of its size along each of some dimensions. Since T = T⁻¹, twice is x again.

    Takes n · (sum of a few small factors of n) multiply-adds for each vector of length n, and memory for two results.
    A prime factor p of n counts p.

    Args:
        x: contiguous, floating point.
        dims: which dimensions, not negative.
        block: as :func:`transform_factors` takes it.
        overwrite: whether x may be written to, which needs no gradient then.
        normalized: False leaves the square roots out, so that for each dimension the result is :func:`norm` times as
            large. The matrices of powers of two are exact then, in half precision too.

    Returns:
        A new tensor of x's shape, contiguous, or x itself if ``overwrite``.
    """
    spare = None
    # within a transform of torch.func even constants are its own, and not to be kept
    kronecker = _kronecker.__wrapped__ if transformed() else _kronecker
    with full_precision(x.device):
        for dim in sorted(dims, reverse=True):
            factors = transform_factors(x.shape[dim], block)
            for parts, right in _stages(factors, math.prod(x.shape[dim + 1 :]), x.dtype):
                y = _apply(kronecker(parts, normalized, x.dtype, x.device), x, right, spare)
                # no memory is written to twice where an operation's gradient may need it
                spare, x, overwrite = None if transformed() or not overwrite else x, y, True
        return x if overwrite else x.clone()


def norm(n: int, block: int | None = None) -> float:
    """How many times as large as T a transform of length n is that is not normalized."""
    return math.sqrt(math.prod(transform_factors(n, block)))


def _stages(factors: tuple[int, ...], right: int, dtype: torch.dtype) -> Iterator[tuple[tuple[int, ...], int]]:
    """Factors of T that are multiplied in at once, as one small dense matrix, and how many numbers lie behind each.

    A product with a small matrix reads and writes all numbers once, as one level of butterflies does, and does the work
    of several levels. The sizes were measured for 64 to 512 channels on a processor with AVX-512. Along the last
    dimension 32 columns are the quickest, or the whole where there are no more than 96. Along an earlier one it is 8
    rows, which take as long as three levels of butterflies, or 16 where each product would be short. In half
    precision, for which torch takes another library, 32 rows take hardly longer than 8.
    """
    rest, whole = list(factors), math.prod(factors)
    while rest:
        if right == 1:
            limit = whole if whole <= 96 else 32
        elif dtype in (torch.bfloat16, torch.float16):
            limit = 32
        else:
            limit = 16 if right < 64 else 8
        parts = [rest.pop()]
        while rest and rest[-1] * math.prod(parts) <= limit:
            parts.insert(0, rest.pop())
        yield tuple(parts), right
        right *= math.prod(parts)


def _apply(matrix: Tensor, x: Tensor, right: int, spare: Tensor | None) -> Tensor:
    """matrix times x seen as ``(left, len(matrix), right)``; in the memory of ``spare`` where that is possible."""
    n = len(matrix)
    if right == 1:
        rows = x.view(-1, n)  # the matrix is symmetric
        return (times_transpose(rows, matrix) if x.device.type == "cpu" else rows @ matrix).view(x.shape)
    slices = x.view(-1, n, right)
    out = None if spare is None else spare.view(slices.shape)
    return torch.bmm(matrix.expand(len(slices), n, n), slices, out=out).view(x.shape)


@functools.lru_cache(maxsize=256)
def _kronecker(parts: tuple[int, ...], normalized: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The Kronecker product of Hartley matrices of those sizes."""
    matrix = functools.reduce(torch.kron, map(_hartley, parts))
    if not normalized:
        matrix = matrix * math.sqrt(math.prod(parts))
    # first the dtype: not every device has float64
    return matrix.to(dtype).to(device)


def _hartley(n: int) -> Tensor:
    j = torch.arange(n, device="cpu")
    # jk is reduced while it is an integer, so that the angle is as exact for large n
    angle = (torch.outer(j, j) % n).double() * (2 * math.pi / n)
    return (angle.cos() + angle.sin()) / math.sqrt(n)
