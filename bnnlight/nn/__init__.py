"""The method: binary layers with factorized latent weights. torch and tensorly, nothing of Lightning.

A layer computes Y = α ⊙ (sign(X) ⊛ sign(W̃)) with W̃ rebuilt from real factors at every training step.

| file | what |
|---|---|
| `binarize.py` | `sign` and its straight-through gradients |
| `latent.py` | `Latent`, the contract, and `Dense`, the baseline |
| `matrix.py` `tucker.py` `holistic.py` | the decompositions of the paper |
| `cp.py` `tensor_train.py` | two more |
| `rotated.py` | `Rotated`, dense weights in a basis that is turned at random |
| `hadamard.py` | the fast orthogonal transform that turns it |
| `unfolding.py` | small matrices with the singular values of a weight's unfoldings |
| `rank.py` | from the rank a user writes to the rank of each mode |
| `scale.py` | α: `none`, `analytic`, `channel`, `spatial` |
| `layers.py` | `BinaryConv2d`, `BinaryLinear` |
| `binary_conv.py` | sign, convolution, α and PReLU as one function that keeps three bytes an activation |
| `integer_conv.py` `patches.py` | its sums in 8-bit integers on CPUs; the patches of an image as a matrix |
| `conv_gradients.py` | its gradients, by the quicker of two ways |
| `rprelu.py` | `RPReLU`, the activation of ReActNet |
| `rounding.py` | sums, α and the output's dtype: rounded once, whichever way they are computed |
| `product.py` | the matrix products that weights are rebuilt with |
| `lean.py` | training in half the memory: what lies between convolutions is computed again |
| `accumulation.py` | weights rebuilt once for all batches of an optimizer step |
| `relaxed.py` `stages.py` | real weights, real or binary activations, under the same α; a network's stage |
| `convert.py` `converted.py` | a real network made binary; what a convolution is then |
| `convert_plan.py` `flow.py` | what can be made binary, what stays real and why; which layers give the answer |
| `become.py` `running.py` | a module made another one in place; a network run once |
| `factorize.py` `spatial.py` | latents decomposed; scales for each position |
| `sync_norm.py` | batch norm over all processes of a run, on any device |
| `real.py` | the real-valued twin of a binary network |
| `start.py` | a binary network started from the weights of a trained one |
| `inspect.py` | what callbacks, optimizers, summary and deployment may know of a network |
| `summary.py` | parameters, bytes and multiply-adds of a network |

Add your own latent: subclass `Latent`, take a dense weight as the first argument, return W̃ from `forward`,
fill `lr_scales`; then name the class in a config under `latent:`. Nothing else is edited.
"""

from bnnlight.nn.binarize import Gradient, Tanh, sign, straight_through
from bnnlight.nn.convert import convert
from bnnlight.nn.convert_plan import SHORTCUTS, ConversionPlan, plan_conversion
from bnnlight.nn.converted import ConvertedConv2d
from bnnlight.nn.cp import CP
from bnnlight.nn.factorize import factorize, restart_alpha
from bnnlight.nn.holistic import Holistic
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.latent import Dense, Latent, LatentFactory
from bnnlight.nn.layers import BinaryConv2d, BinaryLayer, BinaryLinear
from bnnlight.nn.matrix import Matrix
from bnnlight.nn.rank import Rank
from bnnlight.nn.real import real_valued
from bnnlight.nn.relaxed import Stage
from bnnlight.nn.rotated import Rotated
from bnnlight.nn.rprelu import RPReLU
from bnnlight.nn.scale import ScaleName
from bnnlight.nn.spatial import make_spatial
from bnnlight.nn.stages import set_stage
from bnnlight.nn.start import start_from
from bnnlight.nn.tensor_train import TensorTrain
from bnnlight.nn.tucker import Tucker

__all__ = [
    "CP",
    "SHORTCUTS",
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "ConversionPlan",
    "ConvertedConv2d",
    "Dense",
    "Gradient",
    "Holistic",
    "Latent",
    "LatentFactory",
    "Matrix",
    "RPReLU",
    "Rank",
    "Rotated",
    "ScaleName",
    "Stage",
    "Tanh",
    "TensorTrain",
    "Tucker",
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
]
