"""Callbacks that log what is peculiar to training binary networks, and what they predict; and training recipes.

LAYER is a binary layer's path in the model. All go to every logger under the optimizer step; `interval` counts
optimizer steps, whatever the gradient accumulation.

| callback | keys | default interval |
|---|---|---|
| `FlipRates` | `bnn/flip_rate/LAYER`, `bnn/flip_rate_mean` (all weights) | 100 |
| `FactorRanks` | `bnn/rank_effective`, `_stable`, `_energy`, `_nominal` + `/LAYER/mode0` …, `/LAYER/factor0` … | 1000 |
| `Alphas` | `bnn/alpha_mean`, `_std`, `_min`, `_max`, `_negative` + `/LAYER`; histogram `bnn/alpha/LAYER` (W&B) | 100 |
| `Activations` | `bnn/positive/LAYER`, `bnn/dead/LAYER`, `bnn/cut/LAYER` | 100 |
| `StepTime` | `time/step`, `time/data` (seconds), `mem/peak` (bytes) | 50 |
| `ProcessorTime` | `time/processor` (seconds of processor time since training began) | each validation |
| `Damping` | `bnn/damped` (share of binary weights' steps that the optimizer's ε shortens) | each validation |
| `BadImages` | `data/bad_images`, where the data skip what cannot be read | 50 |
| `Pictures` | `val/pictures`, `test/pictures` | each validation |
| `Updates` | `bnn/update_rank`, `bnn/update_follows` + `/LAYER`, and their means; not on by default | 1000 |

`interval.py` says when a look is due. Looking changes neither weights nor random numbers. These callbacks do more
than look, where a config names them:

| callback | what | keys |
|---|---|---|
| `Sharpen` | replaces the signs' straight-through gradients as training goes on | `bnn/sharpness` |
| `Loosen` | moves the quantile at which weights are clamped | `bnn/tau` |
| `Turn` | turns weights toward their signs as epochs begin | |
| `Stages` | trains real at first, then with binary activations, then binary | `bnn/stage`, `stage/NAME/val/…` |
| `LayerByLayer` | makes one layer after another binary, with masks that grow | `bnn/binary_share`, `stage` |
| `FreezeSigns` | stops stepping latents, while everything real trains on | `bnn/signs_frozen` |
| `WeightDecay` | weight decay of latents, for the whole run or until they are binary | |

The last four are in `schedules`. `Compile` is option `--compile`: it changes how quickly a step is taken, and nothing
that is trained.
"""

from bnnlight.callbacks.activations import Activations
from bnnlight.callbacks.alphas import Alphas
from bnnlight.callbacks.bad_images import BadImages
from bnnlight.callbacks.compiled import Compile, CompileOptions
from bnnlight.callbacks.damping import Damping
from bnnlight.callbacks.factor_ranks import FactorRanks
from bnnlight.callbacks.flip_rates import FlipRates
from bnnlight.callbacks.loosen import Loosen
from bnnlight.callbacks.pictures import Pictures
from bnnlight.callbacks.processor_time import ProcessorTime
from bnnlight.callbacks.schedules.freeze_signs import FreezeSigns
from bnnlight.callbacks.schedules.layer_by_layer import LayerByLayer
from bnnlight.callbacks.schedules.stages import Stages
from bnnlight.callbacks.schedules.weight_decay import WeightDecay
from bnnlight.callbacks.sharpen import Sharpen
from bnnlight.callbacks.step_time import StepTime
from bnnlight.callbacks.turn import Turn
from bnnlight.callbacks.updates import Updates

__all__ = [
    "Activations",
    "Alphas",
    "BadImages",
    "Compile",
    "CompileOptions",
    "Damping",
    "FactorRanks",
    "FlipRates",
    "FreezeSigns",
    "LayerByLayer",
    "Loosen",
    "Pictures",
    "ProcessorTime",
    "Sharpen",
    "Stages",
    "StepTime",
    "Turn",
    "Updates",
    "WeightDecay",
]
