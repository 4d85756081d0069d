"""The method: binary layers with factorized latent weights.

It needs torch, tensorly and numpy, but not Lightning.

A layer computes Y = α ⊙ (sign(X) ⊛ sign(W̃)) with W̃ rebuilt from real factors at every training step.

The folders in here, whose docstrings say what their files do, and the files beside them:

| folder or file | what |
|---|---|
| `latents` | latent weights: `Dense`, the decompositions, `Rotated`; ranks and unfoldings |
| `parts` | what a layer may have in addition: changes to W̃ and X before their signs are taken |
| `compute` | the binary convolution as one function, products, lean training; how results are rounded |
| `binarize.py` | `sign` and its straight-through gradients |
| `scale.py` `spatial.py` | α: `none`, `analytic`, `channel`, `spatial`; scales for each position |
| `layers.py` | `BinaryConv2d`, `BinaryLinear` |
| `rprelu.py` | `RPReLU`, the activation of ReActNet |
| `stages.py` | how much of a network's layers is binary: nothing, the activations, a share of the entries, or all |
| `factorize.py` | decomposes a network's latents, and resets its α |
| `convert.py` `converted.py` | makes a real network binary; what a convolution becomes |
| `convert_plan.py` `flow.py` | what can be made binary, what stays real and why; which layers give the answer |
| `torch_internals.py` | uses of torch's private parts: turning a module into another in place, hooks, transforms |
| `running.py` | runs a network once |
| `real.py` | the real-valued twin of a binary network |
| `start.py` | starts a binary network from the weights of a trained one |
| `inspect.py` | how callbacks, optimizers, guards, summary and deployment look at a network |
| `summary.py` | parameters, bytes and multiply-adds of a network |

Add your own latent: subclass `Latent`, take a dense weight as the first argument, return W̃ from `forward`,
fill `lr_scales`; then name the class in a config under `latent:`. Nothing else needs editing.
"""

from importlib import import_module
from typing import Any

from bnnlight.nn.binarize import Gradient, Tanh, Triangular, sign, straight_through
from bnnlight.nn.compute.fixed_point import FixedPoint, FixedPointConv2d, FixedPointLinear
from bnnlight.nn.compute.kept_weights import weights_kept
from bnnlight.nn.compute.relaxed import Stage
from bnnlight.nn.convert import convert
from bnnlight.nn.convert_plan import SHORTCUTS, ConversionPlan, plan_conversion
from bnnlight.nn.converted import ConvertedConv2d
from bnnlight.nn.factorize import factorize, restart_alpha
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.latents import (
    CP,
    Dense,
    Holistic,
    Latent,
    LatentFactory,
    Matrix,
    Rank,
    Rotated,
    TensorTrain,
    Tucker,
)
from bnnlight.nn.layers import BinaryConv2d, BinaryLayer, BinaryLinear
from bnnlight.nn.parts import (
    Balanced,
    BiRotated,
    Clamped,
    InputPart,
    InputPartFactory,
    LearnedPair,
    Normalized,
    Shifted,
    Standardized,
    WeightPart,
    WeightPartFactory,
)
from bnnlight.nn.real import real_valued
from bnnlight.nn.rprelu import RPReLU
from bnnlight.nn.scale import ScaleName
from bnnlight.nn.spatial import make_spatial
from bnnlight.nn.stages import set_stage
from bnnlight.nn.start import start_from

__all__ = [
    "CP",
    "SHORTCUTS",
    "Balanced",
    "BiRotated",
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "Clamped",
    "ConversionPlan",
    "ConvertedConv2d",
    "Dense",
    "FixedPoint",
    "FixedPointConv2d",
    "FixedPointLinear",
    "Gradient",
    "Holistic",
    "InputPart",
    "InputPartFactory",
    "Latent",
    "LatentFactory",
    "LearnedPair",
    "Matrix",
    "Normalized",
    "RPReLU",
    "Rank",
    "Rotated",
    "ScaleName",
    "Shifted",
    "Stage",
    "Standardized",
    "Tanh",
    "TensorTrain",
    "Triangular",
    "Tucker",
    "WeightPart",
    "WeightPartFactory",
    "convert",
    "factorize",
    "make_spatial",
    "named_binary_layers",
    "plan_conversion",
    "real_valued",
    "restart_alpha",
    "set_stage",
    "sign",
    "start_from",
    "straight_through",
    "weights_kept",
]

_IN_OPTIM = {"Bop", "ParameterGroup", "parameter_groups"}


def __getattr__(name: str) -> Any:
    """What moved to `bnnlight.optim`: earlier versions' configs and runs name it here."""
    if name in _IN_OPTIM:
        # only when asked for, since `optim` imports this package
        return getattr(import_module("bnnlight.optim"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
