"""Callbacks: what is peculiar to training binary networks, and what they predict, logged.

LAYER is a binary layer's path in the model. All go to every logger under the optimizer step; `interval` counts
optimizer steps, whatever the gradient accumulation.

| callback | keys | default interval |
|---|---|---|
| `FlipRates` | `bnn/flip_rate/LAYER`, `bnn/flip_rate` (all weights) | 100 |
| `FactorRanks` | `bnn/rank_effective`, `_stable`, `_energy`, `_nominal` + `/LAYER/mode0` …, `/LAYER/factor0` … | 1000 |
| `Alphas` | `bnn/alpha_mean`, `_std`, `_min`, `_max`, `_negative` + `/LAYER`; histogram `bnn/alpha/LAYER` (W&B) | 100 |
| `Activations` | `bnn/positive/LAYER`, `bnn/dead/LAYER`, `bnn/cut/LAYER` | 100 |
| `StepTime` | `time/step`, `time/data` (seconds), `mem/peak` (bytes) | 50 |
| `BadImages` | `data/bad_images`, where the data skip what cannot be read | 50 |
| `Pictures` | `val/pictures`, `test/pictures` | each validation |
| `LastCheckpoint` | none: it saves the run, so that it can be stopped at any moment | 10 minutes, each validation |
| `NonFinite` | `train/skipped_batches` | each skipped step |

`interval.py` says when a look is due. Looking changes neither weights nor random numbers. `LastCheckpoint` saves, with
`run_state.py` and `stop_signals.py`. `NonFinite` ends a run, or skips a step, whose loss or gradient is not finite:
`bad_step.py` and `first_non_finite.py` find where that comes from, `kept_state.py` takes the forward pass back.
"""

from bnnlight.callbacks.activations import Activations
from bnnlight.callbacks.alphas import Alphas
from bnnlight.callbacks.bad_images import BadImages
from bnnlight.callbacks.factor_ranks import FactorRanks
from bnnlight.callbacks.flip_rates import FlipRates
from bnnlight.callbacks.last_checkpoint import LastCheckpoint
from bnnlight.callbacks.non_finite import NonFinite
from bnnlight.callbacks.pictures import Pictures
from bnnlight.callbacks.step_time import StepTime

__all__ = [
    "Activations",
    "Alphas",
    "BadImages",
    "FactorRanks",
    "FlipRates",
    "LastCheckpoint",
    "NonFinite",
    "Pictures",
    "StepTime",
]
