"""`BinaryConv2d` and `BinaryLinear`: sign, latent weight and scale, and the parts that a method adds to them."""

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
from bnnlight.nn.parts.inputs import InputPartFactory, InputParts
from bnnlight.nn.parts.weights import WeightPartFactory, WeightParts
from bnnlight.nn.scale import ScaleName, apply_alpha, make_scale
from bnnlight.nn.torch_internals import transformed

NO_PAIR = "scale 'spatial' cannot be combined with LearnedPair: choose scale 'channel'"


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

    With ``weight_parts`` B = sign(W̃'), and with ``input_parts`` X is changed before its sign, or the sign's two values
    are others: see :mod:`bnnlight.nn.parts`.

    Attributes:
        latent: module that returns the real weight W̃ ``(O, I, *kernel)``. May be replaced at any time.
        scale: module that returns α.
        weight_parts: module that returns W̃' of W̃; None where they are the same.
        input_parts: module that returns what X's sign is taken of; None for X itself.
        activation_gradient, weight_gradient: straight-through gradients. May be replaced at any time.
        bias: ``(O,)`` or None, added after α.
        stage: ``binary``, what :func:`bnnlight.nn.set_stage` describes, or a :class:`Mixed` of both. Not part of the
            ``state_dict``.

    W̃ is rebuilt at each call, so it is never out of date; a network that is called many times unchanged runs in
    :func:`bnnlight.nn.weights_kept`, where it is rebuilt once.
    """

    stage: Stage | Mixed = "binary"
    channel_dim: int
    """Along which inputs and outputs have their channels."""

    def __init__(
        self,
        weight: Tensor,
        latent: LatentFactory,
        scale: ScaleName,
        activation_gradient: Gradient,
        weight_gradient: Gradient,
        output_size: Sequence[int] | None,
        bias: bool,
        weight_parts: Sequence[WeightPartFactory],
        input_parts: Sequence[InputPartFactory],
        num_channels: int,
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
        self.weight_parts = WeightParts([part(weight) for part in weight_parts]) if weight_parts else None
        parts = [part(num_channels).to(weight) for part in input_parts]
        self.input_parts = InputParts(parts) if parts else None

    @property
    def weight_shape(self) -> torch.Size:
        """Shape of the binary weight, ``(O, I, *kernel)``."""
        return self.latent.shape

    @property
    def weight(self) -> Tensor:
        """W̃ ``(O, I, *kernel)``, rebuilt each time, for code that asks any layer for its weight. Not in the state."""
        return self.latent()

    def binary_weight(self) -> Tensor:
        """B, the sign of W̃ or W̃', as ±1, ``(O, I, *kernel)``, without gradient."""
        with torch.no_grad():
            return sign(self._weight_and_alpha()[0])

    def alpha(self) -> Tensor | None:
        """α as it stands, without gradient: ``(O,)``, ``(O, *output size)``, or None for scale ``none``."""
        with torch.no_grad():
            return self._weight_and_alpha()[1]

    def output_terms(self) -> tuple[Tensor | None, Tensor | None]:
        """What the sums of signs are multiplied by, and what is added then, without gradient: in eval mode
        Y = factor ⊙ (sign(X − threshold) ∗ B) + shift. α and bias, where the sign's two values are ±1."""
        with torch.no_grad():
            return self._terms()[1:]

    def threshold(self) -> Tensor:
        """From which number on an input becomes +1, ``(C,)`` or ``(1,)``, without gradient."""
        threshold = None if self.input_parts is None else self.input_parts.threshold()
        return self._any_tensor().new_zeros(1) if threshold is None else threshold.detach()

    def _weight_and_alpha(self) -> tuple[Tensor, Tensor | None]:
        """W̃', whose sign is taken, and α."""
        with full_precision(self._any_tensor().device):
            weight = self._latent_weight()
            alpha = self.scale(weight)
            return weight if self.weight_parts is None else self.weight_parts(weight), alpha

    def _any_tensor(self) -> Tensor:
        return next(itertools.chain(self.latent.parameters(), self.latent.buffers()))

    def _latent_weight(self) -> Tensor:
        # a dense weight is a parameter; a subclass that computes another one from it does so at each call
        if isinstance(self.latent, Dense) or transformed():
            return self.latent()
        if torch.compiler.is_compiling():  # which leaves out by itself what is not needed
            return checkpoint(self.latent, use_reentrant=False) if torch.is_grad_enabled() else self.latent()
        if not torch.is_grad_enabled():
            return weight_of(self.latent)
        # what lies between factors and W̃ is computed again in the backward pass, not kept; parts look at W̃ themselves
        parts = self.weight_parts is not None or self.input_parts is not None
        return rebuilt(self.latent, needed=parts or self.scale.needs_weight or not self._replays())

    def _terms(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What is convolved, W̃' or what stands for its sign, and the two numbers of :meth:`output_terms`."""
        weight, alpha = self._weight_and_alpha()
        if self.stage != "binary":
            weight = relaxed_weight(weight, self.stage, self.weight_gradient)
        pair = None if self.input_parts is None else self.input_parts.pair()
        if pair is None:
            return weight, alpha, self.bias
        # the filters see a q + b: that is a times what they see of q, and b times the sum of each
        (distance, center), num_filters = pair, len(weight)
        filters = sign(weight, self.weight_gradient) if self.stage == "binary" else weight
        factor, shift = distance.expand(num_filters), center * filters.flatten(1).sum(1)
        if alpha is not None:
            if alpha.ndim > 1:
                raise ValueError(NO_PAIR)
            factor, shift = alpha * factor, alpha * shift
        return weight, factor, shift if self.bias is None else shift + self.bias

    def _replays(self) -> bool:
        """Whether the layer's signs and sums are on record, so that W̃ itself is not looked at."""
        return False

    @property
    def _takes_signs(self) -> bool:
        """Whether of each input nothing but its sign is looked at; a mixture has real ones too."""
        return self.stage in ("binary", "binary_activations")

    def before_sign(self, x: Tensor) -> Tensor:
        """U, whose sign is taken, or which is convolved in the stage ``real``: x itself, or what parts make of it."""
        return x if self.input_parts is None else self.input_parts(x, self.channel_dim, self._takes_signs)

    def _signs(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """sign(X) and sign(W̃), in the dtype in which their products are added up."""
        x, weight = sign(x, self.activation_gradient), sign(weight, self.weight_gradient)
        dtype = sum_dtype(x.device, output_dtype(x))
        return x.to(dtype), weight.to(dtype)

    def _finish(self, y: Tensor, alpha: Tensor | None, shift: Tensor | None) -> Tensor:
        y = apply_alpha(y, None if alpha is None else alpha.to(y.dtype), self.channel_dim)
        if shift is not None:
            shape = [1] * y.ndim
            shape[self.channel_dim] = -1
            y = y + shift.to(y.dtype).view(shape)
        return y


class BinaryConv2d(BinaryLayer):
    """Binary 2-D convolution Y = α ⊙ (sign(X) ⊛ sign(W̃)), padded after the sign.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, stride, padding, dilation: in px, one number or (height, width).
        groups: number of blocks that inputs and outputs are split into.
        padding_value: 0 (the usual choice: border pixels get fewer terms), or +1 or -1 (everything stays binary).
        latent: maps a dense weight ``(O, I/groups, kh, kw)`` to a module that rebuilds it.
        scale: ``none``, ``analytic``, ``channel`` or ``spatial``.
        activation_gradient, weight_gradient: straight-through gradients, see
            :func:`bnnlight.nn.straight_through`.
        output_size: (height, width) of the output in px; needed by scale ``spatial`` alone.
        bias: adds a real number per output channel after α. Off by default, as a batch norm follows.
        weight_parts, input_parts: what happens to W̃ and to X before their signs, see :mod:`bnnlight.nn.parts`.
        weight: ``(O, I/groups, kh, kw)``, the initial value; Kaiming normal by default.

    Shapes:
        ``(N, in_channels, H, W)`` → ``(N, out_channels, H', W')``, H' and W' as for ``torch.nn.Conv2d``.

    Raises:
        ValueError: channels not divisible by groups, a padding value other than -1, 0, 1, an initial weight
            of another shape, or what the latent, the scale and the parts raise.

    Source: Bulat, Kossaifi, Tzimiropoulos, Pantic 2019, https://arxiv.org/abs/1904.07852.
    """

    channel_dim = 1

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
        weight_parts: Sequence[WeightPartFactory] = (),
        input_parts: Sequence[InputPartFactory] = (),
        weight: Tensor | None = None,
    ) -> None:
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} input, {out_channels} output channels do not divide into {groups} groups")
        if padding_value not in (-1, 0, 1):
            raise ValueError(f"padding_value is {padding_value}: choose -1, 0 or 1")
        kernel_size, stride, padding, dilation = map(pair, (kernel_size, stride, padding, dilation))
        weight = initial_weight(weight, (out_channels, in_channels // groups, *kernel_size))
        parts = weight_parts, input_parts, in_channels
        super().__init__(weight, latent, scale, activation_gradient, weight_gradient, output_size, bias, *parts)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.padding_value = padding_value

    def forward(self, x: Tensor, slope: Tensor | None = None) -> Tensor:
        """Y ``(N, out_channels, H', W')`` of x ``(N, in_channels, H, W)``.

        Args:
            x: of any floating-point dtype.
            slope: ``(out_channels,)`` or ``(1,)``, of a PReLU that follows: then its result, in less memory.
        """
        x, (weight, alpha, shift) = self.before_sign(x), self._terms()
        if self.stage != "binary":
            x, weight = relaxed_input(x, self.stage, self.activation_gradient), weight.to(x.dtype)
            # beside real activations ±1 means nothing
            padding_value = 0 if self.stage == "real" else self.padding_value
            y = self._finish(convolve(x, weight, self._conv_shape(padding_value)), alpha, shift)
            return y if slope is None else F.prelu(y, slope.to(y.dtype))
        # α of each position and bias come behind, in the output's dtype
        inside = alpha if alpha is not None and alpha.ndim == 1 else None
        outside = None if alpha is inside else alpha
        if not self.training or transformed():
            y = self._finish(scaled(self._sums(x, weight), inside, output_dtype(x)), outside, shift)
        else:
            complete = alpha is inside and shift is None
            shape, gradients = self._conv_shape(self.padding_value), (self.activation_gradient, self.weight_gradient)
            y = binary_conv2d(x, weight, inside, shape, *gradients, slope if complete else None)
            if complete:
                return y
            y = self._finish(y, outside, shift)
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
        weight_parts, input_parts: what happens to W̃ and to X before their signs, see :mod:`bnnlight.nn.parts`.
        weight: ``(O, I)``, the initial value; Kaiming normal by default.

    Shapes:
        ``(…, in_features)`` → ``(…, out_features)``.

    Raises:
        ValueError: an initial weight of another shape, or what the latent, the scale and the parts raise.
    """

    channel_dim = -1

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
        weight_parts: Sequence[WeightPartFactory] = (),
        input_parts: Sequence[InputPartFactory] = (),
        weight: Tensor | None = None,
    ) -> None:
        weight = initial_weight(weight, (out_features, in_features))
        parts = weight_parts, input_parts, in_features
        super().__init__(weight, latent, scale, activation_gradient, weight_gradient, None, bias, *parts)
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        x, (weight, alpha, shift) = self.before_sign(x), self._terms()
        if self.stage != "binary":
            x, weight = relaxed_input(x, self.stage, self.activation_gradient), weight.to(x.dtype)
            return self._finish(F.linear(x, weight), alpha, shift)
        signs, weight = self._signs(x, weight)
        with full_precision(x.device):
            sums = F.linear(signs, weight)
        return self._finish(scaled(sums, alpha, output_dtype(x), self.channel_dim), None, shift)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, scale={self.scale.name}"
