"""Functions of torch that are quick and not public, or hardly so; each beside a public way.

A kernel is tried at its first use on a device with a dtype. Where it is missing, raises, or gives other numbers than
the public way, as another version of torch may have it, that way is taken from then on: slower, with the same results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Kernel:
    """A function of torch that is not public, or a public way to the same result where it does not work.

    Args:
        private: calls torch's function, which it looks up in each call.
        public: does the same, of the same arguments, in public terms.
        examples: small arguments on a device, of a dtype: several sets, in which a wrong option would show.
        traced: whether a compiled network has torch's function too, untested; else it has the public way.
        quick: whether torch's function is worth its while; asked once, where its results are right.

    Both ways return a tensor, or a sequence of tensors and None.
    """

    def __init__(
        self,
        private: Callable[..., Any],
        public: Callable[..., Any],
        examples: Callable[[torch.device, torch.dtype], Iterable[tuple]],
        traced: bool = False,
        quick: Callable[[], bool] = lambda: True,
    ) -> None:
        self.private, self.public, self.examples, self.traced, self.quick = private, public, examples, traced, quick
        self._verdicts: dict[tuple[torch.device, torch.dtype], bool] = {}

    def __call__(self, first: Tensor | Sequence[Tensor], *others: Any) -> Any:
        like = first if isinstance(first, Tensor) else first[0]
        return (self.private if self.works(like.device, like.dtype) else self.public)(first, *others)

    def works(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether torch's function is taken there; tried at the first time."""
        if torch.compiler.is_compiling():  # which cannot follow the trial
            return self.traced
        verdict = self._verdicts.get((device, dtype))
        if verdict is None:
            # threads that come at the same time may try it twice, and agree on the verdict that was there first
            verdict = self._verdicts.setdefault((device, dtype), self._tried(device, dtype))
        return verdict

    def _tried(self, device: torch.device, dtype: torch.dtype) -> bool:
        verdicts = []

        def try_it() -> None:
            try:
                right = all(
                    _alike(self.private(*one), self.public(*other))
                    # made twice, as a kernel may write to its arguments
                    for one, other in zip(self.examples(device, dtype), self.examples(device, dtype), strict=True)
                )
                verdicts.append(right and self.quick())
            except Exception:  # what is not public may fail in any way
                verdicts.append(False)

        # a new thread has no autocast, inference mode or other mode of torch's that the caller may be in
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        return verdicts[0]


def _alike(result: Any, expected: Any) -> bool:
    """Whether both are the same tensors but for rounding, also in shape and dtype."""
    if expected is None or result is None:
        return result is expected
    if not isinstance(expected, Tensor):
        return all(map(_alike, result, expected))
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return False
    if not result.is_floating_point():
        return torch.equal(result, expected)
    error, size = (result - expected).abs().max(), expected.abs().max()
    return bool(error <= size * torch.finfo(result.dtype).eps ** 0.5)


def _example(device: torch.device, dtype: torch.dtype, *shape: int, start: int = 0) -> Tensor:
    """Whole numbers within ±2, without drawing any at random."""
    number = torch.Size(shape).numel()
    entries = torch.arange(start, start + number, device=device, dtype=torch.float32)
    return (entries.square() % 7 % 5 - 2).to(dtype).view(shape)


def _int_mm_examples(device: torch.device, dtype: torch.dtype) -> Iterable[tuple]:
    # processors without dot products of bytes (x86 without VNNI or AMX) may saturate at 16 bits
    ones = torch.ones(64, 1200, device=device, dtype=dtype)
    yield ones, -ones.T
    yield _example(device, dtype, 32, 40), _example(device, dtype, 24, 40, start=1).T


def _int_mm_is_quick() -> bool:
    """Whether this CPU multiplies int8 matrices about as quickly as float32 ones; found by trying.

    Newer versions of torch multiply by plain loops where there are no dot products of bytes, twenty times slower than
    in float32: https://github.com/pytorch/pytorch/pull/136942.
    """
    ones = torch.ones(64, 1200, dtype=torch.int8)
    floats = ones.float()
    # with dot products of bytes they are quicker; four times leaves room for what else the machine does
    return _best_s(torch._int_mm, ones, ones.T) < 4 * _best_s(torch.mm, floats, floats.T)


def _best_s(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    """Seconds of the quickest of five."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        product(a, b)
        times.append(time.perf_counter() - began)
    return min(times)


int_mm = Kernel(
    lambda a, b: torch._int_mm(a, b),
    lambda a, b: torch.mm(a.double(), b.double()).int(),
    _int_mm_examples,
    quick=_int_mm_is_quick,
)
"""a b of two int8 matrices on a CPU, ``(m, k)`` and ``(k, n)``; exact, int32."""


def _mm_examples(device: torch.device, dtype: torch.dtype) -> Iterable[tuple]:
    yield _example(device, dtype, 24, 40), _example(device, dtype, 32, 40, start=1)
    yield _example(device, dtype, 40, 24).T, _example(device, dtype, 40, 32, start=1).T


mm_by_onednn = Kernel(
    lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""),
    lambda a, b: a @ b.T,
    _mm_examples,
)
"""a bᵀ of two float32 matrices on a CPU, ``(m, k)`` and ``(n, k)``, by oneDNN, without gradient."""


def _conv_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    to_x, to_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [*needed, False]
    )
    return to_x, to_weight


def _conv_backward_by_autograd(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    inputs = [t.detach().requires_grad_(need) for t, need in zip((x, weight), needed, strict=True)]
    if not any(needed):
        return None, None
    with torch.enable_grad(), torch.autocast(grad.device.type, enabled=False):
        y = F.conv2d(*inputs, None, stride, padding, dilation, groups)
    gradients = iter(torch.autograd.grad(y, [t for t in inputs if t.requires_grad], grad))
    to_x, to_weight = (next(gradients) if need else None for need in needed)
    return to_x, to_weight


def _conv_backward_examples(device: torch.device, dtype: torch.dtype) -> Iterable[tuple]:
    # each option has a value of its own
    x, weight = _example(device, dtype, 2, 4, 7, 8), _example(device, dtype, 6, 2, 3, 2, start=1)
    grad = _example(device, dtype, 2, 6, 4, 9, start=2)
    for needed in ([True, True], [True, False], [False, True]):
        yield grad, x, weight, (2, 1), (1, 2), (1, 3), 2, needed


conv_backward = Kernel(_conv_backward, _conv_backward_by_autograd, _conv_backward_examples, traced=True)
"""Gradients of y = x ⊛ weight with respect to x and weight, None where not needed, without computing y.

Arguments: that of y, x, weight; stride, padding and dilation as (height, width) in px; groups; which are needed.
"""


def _clamp_examples(device: torch.device, dtype: torch.dtype) -> Iterable[tuple]:
    yield _example(device, dtype, 5, 7, start=1), _example(device, dtype, 5, 7), -2.0, 1.5


clamp_backward = Kernel(
    lambda grad, x, low, high: torch.ops.aten.hardtanh_backward(grad, x, low, high),
    lambda grad, x, low, high: torch.where((x > low) & (x < high), grad, 0),
    _clamp_examples,
    traced=True,
)
"""The gradient where low < x < high, else 0, in one pass."""


def _relu_examples(device: torch.device, dtype: torch.dtype) -> Iterable[tuple]:
    yield _example(device, dtype, 5, 7, start=1), _example(device, dtype, 5, 7)


relu_backward = Kernel(
    lambda grad, x: torch.ops.aten.threshold_backward(grad, x, 0),
    lambda grad, x: grad.masked_fill(x <= 0, 0),
    _relu_examples,
    traced=True,
)
"""The gradient where x > 0, else 0, in one pass."""


def _copied_together(into: Sequence[Tensor], values: Sequence[Tensor]) -> Sequence[Tensor]:
    torch._foreach_copy_(into, values)
    return into


def _copied_one_by_one(into: Sequence[Tensor], values: Sequence[Tensor]) -> Sequence[Tensor]:
    for one, value in zip(into, values, strict=True):
        one.copy_(value)
    return into


def _copy_examples(device: torch.device, dtype: torch.dtype) -> Iterable[tuple]:
    values = [_example(device, dtype, 3), _example(device, dtype, 2, 5, start=1)]
    yield [torch.zeros_like(v) for v in values], values


copy_all = Kernel(_copied_together, _copied_one_by_one, _copy_examples)
"""Copies values into tensors of the same shapes, dtype and device, in few calls; returns those that are written to."""
