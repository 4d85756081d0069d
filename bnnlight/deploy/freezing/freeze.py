"""A trained network without what only training needs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnlight.deploy.freezing.fold import fold
from bnnlight.deploy.freezing.trace import trace
from bnnlight.deploy.freezing.translate import translate
from bnnlight.deploy.program import Program
from bnnlight.deploy.program.operations import check
from bnnlight.nn import BinaryConv2d, BinaryLayer, BinaryLinear, Dense, Shifted, named_binary_layers
from bnnlight.nn.parts import InputParts
from bnnlight.nn.scale import Scale


def freeze(model: nn.Module, input_shape: Sequence[int]) -> Program:
    """What a network computes, as steps with ±1 weights: no factors, no latent weights, no straight-through code.

    Batch norm, α and PReLU become thresholds where a sign follows, and go into the weights of real convolutions
    where they can; elsewhere they stay multiply-adds. See :func:`bnnlight.deploy.freezing.fold.fold`.

    Args:
        model: any torch module built from binary layers and torch's own; it is left as it is.
        input_shape: ``(C, H, W)`` of the pictures that it will be given.

    Returns:
        A program whose value is the network's output, for pictures of that size and batches of any.

    Raises:
        ValueError: the network does not run on such pictures, draws random numbers, or has layers that cannot be
            shipped or are not in the stage ``binary``; the message names their paths, the first few of each kind. All
            of what cannot be shipped is in ``wrong`` of a :class:`bnnlight.deploy.freezing.translate.Refused`.
    """
    for name, layer in named_binary_layers(model):
        if layer.stage != "binary":
            text = f"layer {name or '(the model itself)'} is in the stage {layer.stage!r}: only a binary one is shipped"
            raise ValueError(f"{text}, call bnnlight.nn.set_stage(model, 'binary')")
    shape = tuple(int(side) for side in input_shape)
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        copied = copy.deepcopy(model).eval()
        for module in copied.modules():
            if type(module) in (BinaryConv2d, BinaryLinear):
                _fix(module)
        copied = copied.cpu().float()
        random = torch.get_rng_state()
        program = fold(Program(shape, translate(trace(copied, shape), copied)))
        if not torch.equal(random, torch.get_rng_state()):
            raise ValueError(f"{type(model).__name__} draws random numbers in eval mode: leave them to training")
    check(program)
    return program


class _Alpha(Scale):
    """α as it was computed."""

    name = "channel"

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self.register_buffer("alpha", alpha)

    def forward(self, weight: Tensor) -> Tensor:
        return self.alpha


def _fix(layer: BinaryLayer) -> None:
    """Replaces a layer's latent and parts by their signs, threshold, α and bias.

    All as they are in the network's own dtype and on its device: rebuilt anew, in float32 or by another processor,
    weights close to zero would get other signs.
    """
    signs, (alpha, bias), threshold = layer.binary_weight(), layer.output_terms(), layer.threshold()
    layer.latent, layer.weight_parts = Dense(signs), None
    if alpha is not None:
        layer.scale = _Alpha(alpha.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    if layer.input_parts is not None:
        shifted = Shifted(len(threshold))
        shifted.tau = nn.Parameter(threshold)
        layer.input_parts = InputParts([shifted]).eval()
