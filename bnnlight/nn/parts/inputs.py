"""Parts between a layer's input and its sign."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnnlight.nn.parts.weights import check_thresholds
from bnnlight.nn.torch_internals import transformed


class InputPart(nn.Module):
    """Base of what stands between a layer's input X and its sign: X in, U out, of the same shape and dtype.

    A layer computes q = sign(U). In eval mode that is sign(X − t) with the threshold t, which is what ships.

    Args:
        num_channels: of the input.

    Attributes:
        sets_threshold: whether :meth:`threshold` is anything other than zero. Only one of a layer's parts may do so.
        gradient_only: whether it changes only the sign's straight-through gradient.
    """

    sets_threshold = False
    gradient_only = False

    def __init__(self, num_channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, channel_dim: int) -> Tensor:
        """U of X, with its channels along ``channel_dim``: 1 for a convolution, −1 for a linear layer."""
        raise NotImplementedError

    def threshold(self) -> Tensor | None:
        """t ``(C,)`` or ``(1,)``: U >= 0 just where X >= t; None for zero."""
        return None

    def pair(self) -> tuple[Tensor, Tensor] | None:
        """(a, b), each ``(1,)``: a layer's filters see a · q + b in place of q; None for q itself."""
        return None


InputPartFactory = Callable[[int], InputPart]
"""Makes a part from a number of channels: a subclass of :class:`InputPart`, or a partial of one."""


class InputParts(nn.ModuleList):
    """The parts of one layer, each applied to what the one before returns.

    Those that change only the sign's gradient come last, wherever they are listed: thresholds are in X's own unit.

    Args:
        parts: in their order.

    Raises:
        ValueError: more than one of them sets the sign's threshold.
    """

    def __init__(self, parts: Sequence[InputPart]) -> None:
        super().__init__(sorted(parts, key=lambda part: part.gradient_only))
        check_thresholds("input_parts", parts)

    def forward(self, x: Tensor, channel_dim: int, signs: bool = True) -> Tensor:
        """U of X.

        Args:
            x: X.
            channel_dim: as :class:`InputPart` takes it.
            signs: whether nothing but U's sign is looked at. Without, parts that change the sign's gradient alone are
                left out. With it, in eval mode U is X − t, as it ships: a quotient may be too small a number, and have
                another sign.
        """
        if signs and not self.training:
            threshold = self.threshold()
            return x if threshold is None else x - _along(threshold.to(x.dtype), x, channel_dim)
        for part in self:
            if signs or not part.gradient_only:
                x = part(x, channel_dim)
        return x

    def threshold(self) -> Tensor | None:
        """The one that a part sets; see :meth:`InputPart.threshold`."""
        return next((t for part in self if (t := part.threshold()) is not None), None)

    def pair(self) -> tuple[Tensor, Tensor] | None:
        """The one that a part has; see :meth:`InputPart.pair`."""
        return next((pair for part in self if (pair := part.pair()) is not None), None)


class Shifted(InputPart):
    """U = X − τ with a learned τ for each channel: the shifted sign of ReActNet, RSign.

    τ starts at zero. It is for networks in which no batch norm stands right before the sign; where one does, its bias
    is already such a shift. It ships as the sign's threshold.

    Args:
        num_channels: of the input.

    Source: ReActNet, Liu, Shen, Savvides, Cheng, ECCV 2020, https://arxiv.org/abs/2003.03488.
    """

    sets_threshold = True

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels)
        self.tau = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor, channel_dim: int) -> Tensor:
        return x - _along(self.tau.to(x.dtype), x, channel_dim)

    def threshold(self) -> Tensor:
        return self.tau

    def extra_repr(self) -> str:
        return str(len(self.tau))


class LearnedPair(InputPart):
    """Activations of two learned values, b − a and b + a, in place of −1 and +1: the adaptive binary set of AdaBin.

    U = (X − b) / a, and the filters see a · sign(U) + b. One a and one b for each layer, learned, 1 and 0 at the start.
    With g the sign's straight-through gradient,

        ∂/∂X = g(U),    ∂/∂a = sign(U) − U g(U),    ∂/∂b = 1 − g(U).

    It ships as a threshold b, and in α and bias of each output channel o: α_o a and α_o b Σ B_o. So that this is right
    at the border too, padding is with the pair as well: ``padding_value`` 0 stands for its middle b, ±1 for b ± a.

    Only the size of a counts, as a negative a would just swap the two values, and it is at least 10⁻⁴. Scale
    ``spatial`` cannot be combined with it. For the backward pass it keeps four bytes per activation, in addition to the
    three of a layer without it.

    Args:
        num_channels: of the input.

    Source: AdaBin, Tu, Chen, Ren, Wang, ECCV 2022, https://arxiv.org/abs/2208.08084.
    """

    sets_threshold = True

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels)
        self.distance = nn.Parameter(torch.ones(1))
        self.center = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, channel_dim: int) -> Tensor:
        a, b = (value.to(x.dtype) for value in self.pair())
        return (x - b) / a if transformed() else _Scaled.apply(x, a, b)

    def threshold(self) -> Tensor:
        return self.center

    def pair(self) -> tuple[Tensor, Tensor]:
        size = self.distance.abs()
        # the gradient is that of the size itself, so that a smaller one grows again
        return size + (size.clamp_min(1e-4) - size).detach(), self.center


class _Scaled(torch.autograd.Function):
    """(x − b) / a for an a and a b of one number, whose gradients take fewer passes than torch's own."""

    @staticmethod
    def forward(ctx, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        u = (x - b).div_(a)
        ctx.save_for_backward(u, a)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, a = ctx.saved_tensors
        to_x = grad / a
        return to_x, -(to_x * u).sum().view(1), -to_x.sum().view(1)


class Normalized(InputPart):
    """U = X / sqrt(var(X) + ε) while training, with the variance of each picture's own entries; U = X in eval mode.

    The sign stays as it is; the straight-through gradient, which looks at how large its argument is, sees inputs of one
    deviation. The variance is over all channels and positions of a picture, or features of a row, without bias, and has
    its own gradient. For the backward pass X is kept.

    Args:
        num_channels: of the input.
        eps: ε, above 0.

    Raises:
        ValueError: ε is not a finite number above 0.

    Source: code of ReCU, Xu et al., ICCV 2021, https://arxiv.org/abs/2103.12369.
    """

    gradient_only = True

    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__(num_channels)
        if not (math.isfinite(eps) and eps > 0):
            raise ValueError(f"eps of Normalized is {eps}: give a finite number above 0")
        self.eps = eps

    def forward(self, x: Tensor, channel_dim: int) -> Tensor:
        if not self.training or not x.numel():
            return x
        dims = tuple(range(1, x.ndim)) if x.ndim > 1 else (0,)
        if (x[0] if x.ndim > 1 else x).numel() < 2:
            raise ValueError("Normalized: each input has a single entry, which has no deviation: leave the part out")
        if transformed() or torch.compiler.is_compiling():  # a compiler makes few passes over x by itself
            return x / (x.var(dims, keepdim=True) + self.eps).sqrt()
        return _Normalized.apply(x, dims, self.eps)

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


class _Normalized(torch.autograd.Function):
    """Sums in place of torch's ``var``, which takes many times as long on a CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
        ctx.dims, ctx.rest = dims, math.prod(x.shape[dim] for dim in dims) - 1
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = x.mean(dims, keepdim=True, dtype=wide)
        squares = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=wide).square()
        variance = ((squares - (ctx.rest + 1) * mean.square()) / ctx.rest).clamp_min(0)
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, mean, inverse)
        return x * inverse.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        x, mean, inverse = ctx.saved_tensors
        along = (grad * x).sum(ctx.dims, keepdim=True, dtype=inverse.dtype) * inverse.pow(3) / ctx.rest
        # grad / s − (x − mean) · along
        shift, inverse, along = ((mean * along).to(x.dtype), inverse.to(x.dtype), along.to(x.dtype))
        return torch.addcmul(shift, grad, inverse).addcmul_(x, along, value=-1), None, None


def _along(vector: Tensor, x: Tensor, channel_dim: int) -> Tensor:
    shape = [1] * x.ndim
    shape[channel_dim] = -1
    return vector.view(shape)
