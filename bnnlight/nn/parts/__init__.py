"""Optional parts of a binary layer, besides latent and scale: what happens to W̃ and to X before their signs.

`weights.py` has parts between W̃ and its sign: `Standardized`, `Balanced`, `Clamped`; `birotated.py` has `BiRotated`.
`inputs.py` has parts between X and its sign: `Shifted`, `LearnedPair`, `Normalized`. They are named in lists,
`weight_parts` and `input_parts`, and applied in the order of the list (`Normalized` last). What is shipped of them is
signs, thresholds, α and bias.

Add your own: a subclass of `WeightPart`, made from a dense weight, or of `InputPart`, made from a number of channels.
"""

from bnnlight.nn.parts.birotated import BiRotated
from bnnlight.nn.parts.inputs import InputPart, InputPartFactory, InputParts, LearnedPair, Normalized, Shifted
from bnnlight.nn.parts.weights import Balanced, Clamped, Standardized, WeightPart, WeightPartFactory, WeightParts

__all__ = [
    "Balanced",
    "BiRotated",
    "Clamped",
    "InputPart",
    "InputPartFactory",
    "InputParts",
    "LearnedPair",
    "Normalized",
    "Shifted",
    "Standardized",
    "WeightPart",
    "WeightPartFactory",
    "WeightParts",
]
