"""`BinaryConv2d` and `BinaryLinear`: sign, latent weight and scale, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bnnlight.nn.binarize import Gradient, check_gradient, sign
from bnnlight.nn.compute.binary_conv import binary_conv2d
from bnnlight.nn.compute.kept_weights import weight_of
from bnnlight.nn.compute.lean import rebuilt, record
from bnnlight.nn.compute.patches import ConvShape, convolve, pair
from bnnlight.nn.compute.product import full_precision
from bnnlight.nn.compute.relaxed import Mixed, Stage, relaxed_input, relaxed_weight
from bnnlight.nn.compute.rounding import output_dtype, scaled, sum_dtype
from bnnlight.nn.latents.latent import Dense, LatentFactory
from bnnlight.nn.scale import ScaleName, apply_alpha, make_scale
from bnnlight.nn.torch_internals import transformed


def initial_weight(weight: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """A dense weight ``(O, I, *kernel)``: the one that is given, else entries from N(0, 2/fan-in).

    Raises:
        ValueError: a weight of another shape.

    Source: He, Zhang, Ren, Sun 2015, https://arxiv.org/abs/1502.01852.
    """
    if weight is None:
        return nn.init.kaiming_normal_(torch.empty(*shape), nonlinearity="relu")
    if weight.shape != shape:
        raise ValueError(f"initial weight has shape {tuple(weight.shape)}, the layer needs {shape}")
    return weight


class BinaryLayer(nn.Module):
    """What :class:`BinaryConv2d` and :class:`BinaryLinear` share: Y = α ⊙ (sign(X) ∗ B), B = sign(W̃).

    Attributes:
        latent: module that returns the real weight W̃ ``(O, I, *kernel)``. May be replaced at any time.
        scale: module that returns α.
        activation_gradient, weight_gradient: straight-through gradients. May be replaced at any time.
        bias: ``(O,)`` or None, added after α.
        stage: ``binary``, what :func:`bnnlight.nn.set_stage` describes, or a :class:`Mixed` of both. No part of the
            ``state_dict``.

    W̃ is rebuilt at each call, so that it is never out of date; a network that is called many times as it is runs in
    :func:`bnnlight.nn.weights_kept`, where it is rebuilt once.
    """

    stage: Stage | Mixed = "binary"

    def __init__(
        self,
        weight: Tensor,
        latent: LatentFactory,
        scale: ScaleName,
        activation_gradient: Gradient,
        weight_gradient: Gradient,
        output_size: Sequence[int] | None,
        bias: bool,
    ) -> None:
        super().__init__()
        check_gradient(activation_gradient)
        check_gradient(weight_gradient)
        self.latent = latent(weight)
        with torch.no_grad():
            self.scale = make_scale(scale, self.latent(), output_size)
        self.activation_gradient = activation_gradient
        self.weight_gradient = weight_gradient
        self.bias = nn.Parameter(weight.new_zeros(weight.shape[0])) if bias else None

    @property
    def weight_shape(self) -> torch.Size:
        """Shape of the binary weight, ``(O, I, *kernel)``."""
        return self.latent.shape

    @property
    def weight(self) -> Tensor:
        """W̃ ``(O, I, *kernel)``, rebuilt each time, for code that asks any layer for its weight. Not in the state."""
        return self.latent()

    def binary_weight(self) -> Tensor:
        """B = sign(W̃) as ±1, ``(O, I, *kernel)``, without gradient."""
        with torch.no_grad():
            return sign(self._weight_and_alpha()[0])

    def alpha(self) -> Tensor | None:
        """α as it stands, without gradient: ``(O,)``, ``(O, *output size)``, or None for scale ``none``."""
        with torch.no_grad():
            return self._weight_and_alpha()[1]

    def _weight_and_alpha(self) -> tuple[Tensor, Tensor | None]:
        """W̃ and α."""
        tensors = itertools.chain(self.latent.parameters(), self.latent.buffers())
        with full_precision(next(tensors).device):
            weight = self._latent_weight()
            return weight, self.scale(weight)

    def _latent_weight(self) -> Tensor:
        # a dense weight is a parameter; a subclass that computes another one from it does so at each call
        if isinstance(self.latent, Dense) or transformed():
            return self.latent()
        if torch.compiler.is_compiling():  # which leaves out by itself what is not needed
            return checkpoint(self.latent, use_reentrant=False) if torch.is_grad_enabled() else self.latent()
        if not torch.is_grad_enabled():
            return weight_of(self.latent)
        # what lies between factors and W̃ is computed again in the backward pass, not kept
        return rebuilt(self.latent, needed=self.scale.needs_weight or not self._replays())

    def _replays(self) -> bool:
        """Whether the layer's signs and sums are on record, so that W̃ itself is not looked at."""
        return False

    def _relaxed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """q(X), what stands for sign(W̃), and α, in a stage in which not all is binary."""
        weight, alpha = self._weight_and_alpha()
        weight = relaxed_weight(weight, self.stage, self.weight_gradient)
        return relaxed_input(x, self.stage, self.activation_gradient), weight.to(x.dtype), alpha

    def _signs(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """sign(X) and sign(W̃), in the dtype in which their products are added up."""
        x, weight = sign(x, self.activation_gradient), sign(weight, self.weight_gradient)
        dtype = sum_dtype(x.device, output_dtype(x))
        return x.to(dtype), weight.to(dtype)

    def _finish(self, y: Tensor, alpha: Tensor | None, channel_dim: int) -> Tensor:
        y = apply_alpha(y, None if alpha is None else alpha.to(y.dtype), channel_dim)
        if self.bias is not None:
            shape = [1] * y.ndim
            shape[channel_dim] = -1
            y = y + self.bias.to(y.dtype).view(shape)
        return y


class BinaryConv2d(BinaryLayer):
    """Binary 2-D convolution Y = α ⊙ (sign(X) ⊛ sign(W̃)), padded after the sign.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, stride, padding, dilation: in px, one number or (height, width).
        groups: number of blocks that inputs and outputs are split into.
        padding_value: 0 (the usual one: border pixels get fewer terms), or +1 or -1 (all stays binary).
        latent: maps a dense weight ``(O, I/groups, kh, kw)`` to a module that rebuilds it.
        scale: ``none``, ``analytic``, ``channel`` or ``spatial``.
        activation_gradient, weight_gradient: straight-through gradients, see
            :func:`bnnlight.nn.straight_through`.
        output_size: (height, width) of the output in px; needed by scale ``spatial`` alone.
        bias: adds a real number per output channel after α. Off by default, as a batch norm follows.
        weight: ``(O, I/groups, kh, kw)``, the initial value; Kaiming normal by default.

    Shapes:
        ``(N, in_channels, H, W)`` → ``(N, out_channels, H', W')``, H' and W' as for ``torch.nn.Conv2d``.

    Raises:
        ValueError: channels not divisible by groups, a padding value other than -1, 0, 1, an initial weight
            of another shape, or what the latent and the scale raise.

    Source: Bulat, Kossaifi, Tzimiropoulos, Pantic 2019, https://arxiv.org/abs/1904.07852.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        *,
        padding_value: int = 0,
        latent: LatentFactory = Dense,
        scale: ScaleName = "channel",
        activation_gradient: Gradient = "clipped",
        weight_gradient: Gradient = "clipped",
        output_size: Sequence[int] | None = None,
        bias: bool = False,
        weight: Tensor | None = None,
    ) -> None:
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} input, {out_channels} output channels do not divide into {groups} groups")
        if padding_value not in (-1, 0, 1):
            raise ValueError(f"padding_value is {padding_value}: choose -1, 0 or 1")
        kernel_size, stride, padding, dilation = map(pair, (kernel_size, stride, padding, dilation))
        weight = initial_weight(weight, (out_channels, in_channels // groups, *kernel_size))
        super().__init__(weight, latent, scale, activation_gradient, weight_gradient, output_size, bias)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.padding_value = padding_value

    def forward(self, x: Tensor, slope: Tensor | None = None) -> Tensor:
        """Y ``(N, out_channels, H', W')`` of x ``(N, in_channels, H, W)``.

        Args:
            x: of any floating-point dtype.
            slope: ``(out_channels,)`` or ``(1,)``, of a PReLU that follows: then its result, in less memory.
        """
        if self.stage != "binary":
            x, weight, alpha = self._relaxed(x)
            # beside real activations ±1 means nothing
            padding_value = 0 if self.stage == "real" else self.padding_value
            y = self._finish(convolve(x, weight, self._conv_shape(padding_value)), alpha, channel_dim=1)
            return y if slope is None else F.prelu(y, slope.to(y.dtype))
        weight, alpha = self._weight_and_alpha()
        # α of each position and bias come behind, in the output's dtype
        inside = alpha if alpha is not None and alpha.ndim == 1 else None
        outside = None if alpha is inside else alpha
        if not self.training or transformed():
            y = self._finish(scaled(self._sums(x, weight), inside, output_dtype(x)), outside, channel_dim=1)
        else:
            complete = alpha is inside and self.bias is None
            shape, gradients = self._conv_shape(self.padding_value), (self.activation_gradient, self.weight_gradient)
            y = binary_conv2d(x, weight, inside, shape, *gradients, slope if complete else None)
            if complete:
                return y
            y = self._finish(y, outside, channel_dim=1)
        return y if slope is None else F.prelu(y, slope.to(y.dtype))

    def _sums(self, x: Tensor, weight: Tensor) -> Tensor:
        """sign(X) ⊛ sign(W̃) in operations that an export and ``torch.func`` can follow."""
        x, weight = self._signs(x, weight)
        with full_precision(x.device):
            return convolve(x, weight, self._conv_shape(self.padding_value))

    def _conv_shape(self, padding_value: int) -> ConvShape:
        return ConvShape(self.stride, self.padding, self.dilation, self.groups, padding_value)

    def _replays(self) -> bool:
        on_record = record()
        return self.training and self.stage == "binary" and on_record is not None and on_record.replayed

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        defaults = {"padding": (0, 0), "dilation": (1, 1), "groups": 1, "padding_value": 0}
        named = [f"{k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v]
        return ", ".join([text, *named, f"scale={self.scale.name}"])


class BinaryLinear(BinaryLayer):
    """Binary linear layer Y = α ⊙ (sign(X) sign(W̃)ᵀ).

    Args:
        in_features, out_features: sizes of input and output.
        latent: maps a dense weight ``(O, I)`` to a module that rebuilds it.
        scale: ``none``, ``analytic`` or ``channel``; ``spatial`` equals ``channel`` here.
        activation_gradient, weight_gradient: straight-through gradients.
        bias: adds a real number per output after α.
        weight: ``(O, I)``, the initial value; Kaiming normal by default.

    Shapes:
        ``(…, in_features)`` → ``(…, out_features)``.

    Raises:
        ValueError: an initial weight of another shape, or what the latent and the scale raise.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        latent: LatentFactory = Dense,
        scale: ScaleName = "channel",
        activation_gradient: Gradient = "clipped",
        weight_gradient: Gradient = "clipped",
        bias: bool = False,
        weight: Tensor | None = None,
    ) -> None:
        weight = initial_weight(weight, (out_features, in_features))
        super().__init__(weight, latent, scale, activation_gradient, weight_gradient, None, bias)
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        if self.stage != "binary":
            x, weight, alpha = self._relaxed(x)
            return self._finish(F.linear(x, weight), alpha, channel_dim=-1)
        weight, alpha = self._weight_and_alpha()
        signs, weight = self._signs(x, weight)
        with full_precision(x.device):
            sums = F.linear(signs, weight)
        return self._finish(scaled(sums, alpha, output_dtype(x), channel_dim=-1), None, channel_dim=-1)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, scale={self.scale.name}"
