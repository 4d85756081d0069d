"""Windows that slide, in TensorFlow's terms, and what padding adds to a binary convolution.

TensorFlow knows two paddings: none (VALID), and as much as makes the output ⌈size / stride⌉ long (SAME), of which the
odd pixel lies behind. Torch pads both sides alike, so that the two agree for some sizes and not for others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bnnlight.deploy.program import Shape, Step


class Window(NamedTuple):
    """How a step's window goes over height or width.

    Attributes:
        size, out: pixels before and behind the step.
        kernel, stride, dilation: of the window.
        before: pixels of padding at the near side.
    """

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    before: int

    @property
    def reach(self) -> int:
        """Pixels from the first that a window sees to the last."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def after(self) -> int:
        """Pixels of padding that the last window reaches at the far side."""
        return max((self.out - 1) * self.stride + self.reach - self.size - self.before, 0)

    @property
    def is_same(self) -> bool:
        """Whether TensorFlow's SAME is this very padding."""
        needed = max((self.out - 1) * self.stride + self.reach - self.size, 0)
        return self.out == -(-self.size // self.stride) and self.before == needed // 2


def windows(step: Step, before: Shape, after: Shape, kernel: tuple[int, ...]) -> tuple[Window, Window]:
    """Of height and width.

    Args:
        step: a convolution or a pool.
        before, after: shapes ``(C, H, W)`` of its input and its value.
        kernel: height and width.
    """
    s: Any = step.settings
    parts = zip(before[1:], after[1:], kernel, s["stride"], s.get("dilation", (1, 1)), s["padding"], strict=True)
    height, width = (Window(*part) for part in parts)
    return height, width


def strides(step: Step) -> dict[str, int]:
    """As TensorFlow Lite names them."""
    down, across = step.settings["stride"]
    return {"StrideH": down, "StrideW": across}


def border(over: tuple[Window, Window]) -> np.ndarray:
    """A map that is 1 in the padding and 0 in the picture: ``(1, H, W, 1)`` float32."""
    (top, bottom), (left, right) = ((window.before, window.after) for window in over)
    picture = np.zeros([window.size for window in over], np.float32)
    return np.pad(picture, [(top, bottom), (left, right)], constant_values=1)[None, :, :, None]


def counts(step: Step, over: tuple[Window, Window]) -> np.ndarray:
    """By how many numbers torch divides in each window of an average pool: ``(H, W)``."""
    sides = []
    for window in over:
        first = np.arange(window.out) * window.stride - window.before
        # padding counts where it is asked for, but never what ceil_mode adds behind it
        low, high = 0, window.size
        if step.settings["count_include_pad"]:
            low, high = -window.before, window.size + window.before
        sides.append(np.minimum(first + window.kernel, high) - np.maximum(first, low))
    return sides[0][:, None] * sides[1][None]
