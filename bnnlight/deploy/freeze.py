"""A trained network without what only training needs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from bnnlight.deploy.fold import fold
from bnnlight.deploy.operations import check
from bnnlight.deploy.program import Program
from bnnlight.deploy.trace import trace
from bnnlight.deploy.translate import translate


def freeze(model: nn.Module, input_shape: Sequence[int]) -> Program:
    """What a network computes, as steps with ±1 weights: no factors, no latent weights, no straight-through code.

    Batch norm, α and PReLU become thresholds where a sign follows, and go into the weights of real convolutions
    where they can; elsewhere they stay multiply-adds. See :func:`bnnlight.deploy.fold.fold`.

    Args:
        model: any torch module built from binary layers and torch's own; it is left as it is.
        input_shape: ``(C, H, W)`` of the pictures that it will be given.

    Returns:
        A program whose value is the network's output, for pictures of that size and batches of any.

    Raises:
        ValueError: the network does not run on such pictures, or has layers that cannot be shipped; the message
            names their paths.
    """
    copied = copy.deepcopy(model).cpu().float().eval()
    shape = tuple(input_shape)
    program = fold(Program(shape, translate(trace(copied, shape), copied)))
    check(program)
    return program
