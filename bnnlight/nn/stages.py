"""`set_stage`: how much of a network's layers is binary: nothing, the activations, or activations and weights."""

from __future__ import annotations

from torch import nn

from bnnlight.nn.compute.relaxed import STAGES, Mixed, Stage, check_stage
from bnnlight.nn.inspect import named_binary_layers

__all__ = ["STAGES", "Mixed", "Stage", "set_stage"]


def set_stage(model: nn.Module, stage: Stage) -> nn.Module:
    """Puts all binary layers of a network into a stage, in place.

    ======================= ================================================
    stage                   a layer computes
    ======================= ================================================
    ``real``                Y = α ⊙ (X ⊛ W̃_o / mean abs(W̃_o))
    ``binary_activations``  Y = α ⊙ (sign(X) ⊛ W̃_o / mean abs(W̃_o))
    ``binary``              Y = α ⊙ (sign(X) ⊛ sign(W̃_o)), the binary layer
    ======================= ================================================

    W̃ is what parts make of it where a layer has some (:mod:`bnnlight.nn.parts`). Without them, and with a learned α at
    its start, mean abs(W̃_o), the first is the real convolution with the weight W̃. Latents, α and
    all other parameters stay the same ones, so that each stage begins with the weights of the one before; training
    binary networks this way is usual since Bulat & Tzimiropoulos, https://arxiv.org/abs/1904.05868. A stage is not part
    of the ``state_dict``: a newly made network is binary.

    Args:
        model: any module.
        stage: one of the three.

    Returns:
        The same model.

    Raises:
        ValueError: the stage is not one of the three.
    """
    check_stage(stage)
    for _, layer in named_binary_layers(model):
        layer.stage = stage
    return model
