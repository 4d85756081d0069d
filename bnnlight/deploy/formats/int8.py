"""Calibration for 8-bit integers: the range of the inputs of each real layer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bnnlight.deploy.program import Program

REAL_LAYERS = ("conv2d", "linear")


def find_ranges(program: Program, batches: Iterable[np.ndarray]) -> dict[str, tuple[float, float]]:
    """The smallest and the largest number that each real convolution and linear layer is given.

    Args:
        program: that is run, in torch.
        batches: images ``(N, C, H, W)`` float32, normalized; a few hundred of the training set are enough.

    Returns:
        Name of the layer → smallest and largest number of its input.

    Raises:
        ValueError: there is no batch.
    """
    import torch  # only those who export need it

    from bnnlight.deploy.formats.plain import FrozenNetwork

    sources = {step.name: step.inputs[0] for step in program.steps if step.op in REAL_LAYERS}
    low = dict.fromkeys(sources.values(), np.inf)
    high = dict.fromkeys(sources.values(), -np.inf)

    def look(name: str, value: torch.Tensor) -> None:
        if name in low:
            low[name] = min(low[name], value.min().item())
            high[name] = max(high[name], value.max().item())

    network = FrozenNetwork(program).eval()
    num_images = 0
    with torch.inference_mode():
        for batch in batches:
            images = torch.from_numpy(batch)
            look("input", images)
            network(images, look)
            num_images += len(batch)
    if not num_images:
        raise ValueError(
            "8-bit integers need some pictures to find the ranges of real layers' inputs, and there are none"
        )
    return {layer: (low[source], high[source]) for layer, source in sources.items()}
