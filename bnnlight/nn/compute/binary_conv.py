"""The binary convolution as one autograd function: sign, sums, α and PReLU, with three bytes kept per activation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnnlight.nn.binarize import Gradient, decode_sign, encode_sign, sign_backward
from bnnlight.nn.compute.bits import Layout, gated, pack, packs, unpack_sign
from bnnlight.nn.compute.conv_gradients import conv_gradients
from bnnlight.nn.compute.integer_conv import integer_sums, takes_integers
from bnnlight.nn.compute.kernels import relu_backward
from bnnlight.nn.compute.lean import record
from bnnlight.nn.compute.patches import ConvShape, convolve
from bnnlight.nn.compute.product import full_precision
from bnnlight.nn.compute.rounding import output_dtype, scaled, sum_dtype


class _BinaryConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, alpha, slope, shape, x_gradient, weight_gradient):
        ctx.shape, ctx.gradients, ctx.weight_dtype = shape, (x_gradient, weight_gradient), weight.dtype
        dtype = output_dtype(x)
        on_record = record()
        ctx.layout = Layout.of(x) if on_record is None and packs(x_gradient) else None
        # what is packed needs no code: signs are read from X itself
        x_code = x if ctx.layout is not None else encode_sign(x, x_gradient)
        if on_record is not None and on_record.replayed:
            weight_code, sums = on_record.next()
            y = _activated(scaled(_as_computed(sums, dtype), alpha, dtype), slope)
        else:
            # a parameter is there anyway
            weight_code = weight if weight.is_leaf else encode_sign(weight, weight_gradient)
            save_sums = slope is not None or on_record is not None
            y, sums = _convolve(x_code, weight_code, alpha, slope, shape, dtype, save_sums)
            if on_record is not None:
                on_record.keep(weight_code, sums)
        sums = None if slope is None else sums
        kept = (x_code, None) if ctx.layout is None else pack(x, x_gradient)
        ctx.save_for_backward(*kept, weight_code, alpha, slope, sums)
        channels_first = x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last)
        return y.contiguous() if channels_first else y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        shape, (x_gradient, weight_gradient) = ctx.shape, ctx.gradients
        x_code, x_passes, weight_code, alpha, slope, sums = ctx.saved_tensors
        layout = ctx.layout
        to_x = to_weight = to_alpha = to_slope = None
        if slope is not None:
            y = scaled(_as_computed(sums, grad.dtype), alpha, grad.dtype)
            grad, to_slope = _through_prelu(grad, y, slope)
        filters = decode_sign(weight_code, ctx.weight_dtype)
        # α goes to the smaller factor: conv(grad · α, B) = conv(grad, α · B)
        times_alpha = filters if alpha is None else filters * alpha.view(-1, 1, 1, 1)
        needed = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
        signs = decode_sign(x_code, grad.dtype) if layout is None else unpack_sign(x_code, layout, grad.dtype)
        to_signs, to_scaled = conv_gradients(grad, signs, times_alpha.to(grad.dtype), shape, *needed)
        if to_signs is not None:
            to_x = sign_backward(to_signs, x_code, x_gradient) if layout is None else gated(to_signs, x_passes, layout)
        if to_scaled is not None:
            to_scaled = to_scaled.to(times_alpha.dtype)
            if ctx.needs_input_grad[2]:
                to_alpha = _dot(to_scaled, filters)
            if ctx.needs_input_grad[1]:
                to_filters = to_scaled if alpha is None else to_scaled.mul_(alpha.view(-1, 1, 1, 1))
                to_weight = sign_backward(to_filters, weight_code, weight_gradient)
        return to_x, to_weight, to_alpha, to_slope, None, None, None


def _convolve(
    x_code: Tensor,
    weight_code: Tensor,
    alpha: Tensor | None,
    slope: Tensor | None,
    shape: ConvShape,
    dtype: torch.dtype,
    save_sums: bool,
) -> tuple[Tensor, Tensor | None]:
    """The output and, if they are to be saved, the sums as integers."""
    # a sum of n signs lies within ±n
    small = weight_code[0].numel() < 2**15
    integers = None if not save_sums else torch.int16 if small else torch.int32
    if takes_integers(x_code.device, shape.groups) and len(x_code):
        y = saved = None
        begin = 0
        for sums in integer_sums(decode_sign(x_code, torch.int8), decode_sign(weight_code, torch.int8), shape):
            if y is None:
                size = (len(x_code), *sums.shape[1:])
                y = torch.empty(size, dtype=dtype, memory_format=torch.channels_last)
                saved = None if integers is None else torch.empty_like(y, dtype=integers)
            end = begin + len(sums)
            y[begin:end] = _activated(scaled(sums, alpha, dtype), slope)
            if saved is not None:
                saved[begin:end] = sums
            begin = end
        return y, saved
    wide = sum_dtype(x_code.device, dtype)
    with full_precision(x_code.device):
        sums = convolve(decode_sign(x_code, wide), decode_sign(weight_code, wide), shape)
    y = _activated(scaled(sums, alpha, dtype), slope)
    return y, None if integers is None else sums.to(integers)


def _as_computed(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums saved as integers, as they were before: GPUs round them to half precision before α is multiplied."""
    return sums if sums.device.type == "cpu" else sums.to(dtype)


def _activated(y: Tensor, slope: Tensor | None) -> Tensor:
    return y if slope is None else F.prelu(y, slope.to(y.dtype))


def _through_prelu(grad: Tensor, y: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a PReLU's input and slope, without the comparisons that make PyTorch's slow on a CPU."""
    above = relu_backward(grad, y)  # the gradient where y > 0
    below = grad - above
    terms = y.mul_(below)
    to_slope = terms.sum((0, 2, 3)) if slope.numel() > 1 else terms.sum().view(1)
    return below.mul_(slope.to(grad.dtype).view(1, -1, 1, 1)).add_(above), to_slope.to(slope.dtype)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a_o, b_o⟩ for each o, in one pass."""
    a, b = (t.movedim(1, -1).flatten(1) for t in (a, b))
    return a.unsqueeze(1).bmm(b.unsqueeze(2)).view(-1)


def binary_conv2d(
    x: Tensor,
    weight: Tensor,
    alpha: Tensor | None,
    shape: ConvShape,
    activation_gradient: Gradient = "clipped",
    weight_gradient: Gradient = "clipped",
    slope: Tensor | None = None,
) -> Tensor:
    """Y = PReLU(α ⊙ (sign(X) ⊛ sign(W̃))), differentiable once in all of them.

    For the backward pass it keeps one byte for each entry of X and of W̃ (sign, and whether the straight-through
    gradient passes), from which the signs are rebuilt, and with a PReLU the sums as 16-bit integers. α needs no
    output of the convolution: with C the gradient of the scaled filters α_o B_o,

        ∂L/∂α_o = ⟨B_o, C_o⟩,    ∂L/∂B_o = α_o C_o,    ∂L/∂sign(X) = ∂L/∂Y ⊛ᵀ (α_o B_o).

    On a CPU that multiplies bytes exactly the forward pass is computed in integers, else in float32. Sums are exact
    either way, so that both give the same bits, in half precision too.

    Args:
        x: ``(N, I, H, W)``.
        weight: ``(O, I/groups, kh, kw)``, the real weight W̃.
        alpha: ``(O,)`` or None.
        shape: stride, padding and the like.
        activation_gradient, weight_gradient: see :func:`bnnlight.nn.straight_through`.
        slope: ``(O,)`` or ``(1,)``, of the PReLU; None for none.

    Returns:
        ``(N, O, H', W')`` in x's dtype, or autocast's where that is on.

    Raises:
        RuntimeError: x has another number of dimensions or channels, or is smaller than the kernel.
    """
    channels, kernel = weight.shape[1] * shape.groups, weight.shape[2:]
    if x.ndim != 4 or x.shape[1] != channels:
        raise RuntimeError(f"an input of shape {tuple(x.shape)}: the convolution takes (N, {channels}, H, W)")
    moves = zip(x.shape[2:], shape.padding, shape.dilation, kernel, strict=True)
    if any(size + 2 * border < gap * (side - 1) + 1 for size, border, gap, side in moves):
        raise RuntimeError(f"an input of shape {tuple(x.shape)} is smaller than the kernel, {tuple(kernel)} px")
    return _BinaryConv2d.apply(x, weight, alpha, slope, shape, activation_gradient, weight_gradient)
