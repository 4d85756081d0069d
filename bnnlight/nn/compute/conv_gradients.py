"""Gradients of a convolution with respect to its input and its weight, by the quicker of two ways."""

from __future__ import annotations

import torch
from torch import Tensor

from bnnlight.nn.compute.kernels import conv_backward
from bnnlight.nn.compute.patches import ConvShape, add_patches, crop, pad, patches, split_padding
from bnnlight.nn.compute.product import times_transpose


def conv_gradients(
    grad: Tensor, signs: Tensor, weight: Tensor, shape: ConvShape, to_signs: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of y = pad(signs) ⊛ weight.

    Args:
        grad: ``(N, O, H', W')``, of y.
        signs: ``(N, I, H, W)``.
        weight: ``(O, I/groups, kh, kw)``.
        shape: stride, padding and the like.
        to_signs, to_weight: whether that gradient is needed.

    Returns:
        Those of the signs and of the weight, None where not needed.
    """
    positions = grad.numel() // max(1, grad.shape[1])
    if grad.device.type == "cpu" and shape.groups == 1 and 0 < positions <= weight.shape[1]:
        return _by_matrices(grad, signs, weight, shape, to_signs, to_weight)
    signs, padding = split_padding(signs, shape)
    options = (shape.stride, padding, shape.dilation, shape.groups)
    for_signs, for_weight = conv_backward(grad, signs, weight, *options, (to_signs, to_weight))
    return crop(for_signs, shape) if to_signs and shape.padding_value else for_signs, for_weight


def _by_matrices(
    grad: Tensor, signs: Tensor, weight: Tensor, shape: ConvShape, to_signs: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """As products with the matrix of all patches; twice as quick where that is smaller than the weight."""
    num_out, num_in, *kernel = weight.shape
    padded = pad(signs.contiguous(memory_format=torch.channels_last), shape)
    views = patches(padded, kernel, shape)
    rows = grad.permute(0, 2, 3, 1).reshape(-1, num_out)
    for_signs = for_weight = None
    if to_weight:
        columns = views.reshape(len(rows), -1).contiguous()
        for_weight = times_transpose(rows.T.contiguous(), columns.T).view(num_out, *kernel, num_in).permute(0, 3, 1, 2)
    if to_signs:
        columns = times_transpose(rows, weight.permute(0, 2, 3, 1).flatten(1).T)
        for_signs = torch.zeros_like(padded)
        add_patches(columns.view(views.shape), for_signs, shape)
        for_signs = crop(for_signs, shape)
    return for_signs, for_weight
