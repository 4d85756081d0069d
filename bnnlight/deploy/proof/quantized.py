"""`quantized`: a real-valued OpenVINO model with its convolutions and matrix products on 8-bit integers.

Made for timing: where numbers are rounded decides how long the network takes. It takes as long as what NNCF
(https://github.com/openvinotoolkit/nncf) makes of the same network; `results/inference.md` has both. The ranges are
the smallest and the largest number seen, and nothing corrects for the rounding: quantize a network that is to be used
with NNCF.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset13
from openvino.passes import ConstantFolding, Manager

from bnnlight.deploy.formats.openvino_compiled import Compiled
from bnnlight.deploy.formats.openvino_graph import eight_bit_bounds

LAYERS = {"Convolution": 1, "GroupConvolution": 2, "MatMul": 1}
"""What runs on integers → leading axes of its weight that have a scale of their own."""
MOVING = ("MaxPool", "Interpolate", "Reshape", "Squeeze", "Unsqueeze", "Transpose")
"""Operations that only pick or move numbers: rounded before them, they move bytes."""


def quantized(model: ov.Model, images: np.ndarray) -> ov.Model:
    """The model on 8-bit integers, as far as OpenVINO can.

    Weights are rounded to ``[-127, 127]`` with a scale for each output. Inputs of the layers are rounded to 256 levels:
    from 0 where nothing is negative, else symmetrically. What is joined by a ``Concat`` is rounded with one scale, so
    that it is joined as bytes.

    Args:
        model: in float32 or float16, for batches of one; it is changed.
        images: ``(N, C, H, W)`` float32, run to find the ranges; N is at least 1.

    Returns:
        The same model.
    """
    fold_constants(model)
    layers = [node for node in model.get_ordered_ops() if _on_integers(node)]
    moving = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Concat", "Interpolate")]
    groups = _rounded_alike([*(layer.input_value(0) for layer in layers), *(node.output(0) for node in moving)])
    for sources, (low, high) in zip(groups, _ranges(model, groups, images), strict=True):
        for source in sources:
            readers = list(source.get_target_inputs())
            rounded = _rounded(source, low, high)
            for reader in readers:
                reader.replace_source_output(rounded)
    for node in layers:
        node.input(1).replace_source_output(_weight(node))
    model.validate_nodes_and_infer_types()
    return model


def fold_constants(model: ov.Model) -> None:
    """Makes what is computed from constants alone a constant: weights stored as bits, float16 or with a scale."""
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)


def _on_integers(node: ov.Node) -> bool:
    return node.get_type_name() in LAYERS and node.input_value(1).get_node().get_type_name() == "Constant"


def _rounded_alike(values: Sequence[ov.Output]) -> list[list[ov.Output]]:
    """What is rounded: groups of values that have one scale. A value that is rounded already is in none."""
    groups: list[dict[tuple[str, int], ov.Output]] = []
    for value in values:
        sources = _sources(value)
        while joined := next((group for group in groups if group.keys() & sources.keys()), None):
            groups.remove(joined)
            sources |= joined
        groups.append(sources)
    return [list(group.values()) for group in groups if group]


def _sources(value: ov.Output) -> dict[tuple[str, int], ov.Output]:
    """Where to round a layer's input: as early as its numbers are there."""
    node = value.get_node()
    while node.get_type_name() in MOVING:
        value = node.input_value(0)
        node = value.get_node()
    if node.get_type_name() == "Concat":
        return {key: part for joined in node.input_values() for key, part in _sources(joined).items()}
    if node.get_type_name() in ("FakeQuantize", "Constant"):
        return {}
    return {(node.get_name(), value.get_index()): value}


def _ranges(model: ov.Model, groups: list[list[ov.Output]], images: np.ndarray) -> list[tuple[float, float]]:
    """The smallest and the largest number of each group."""
    places = [source for group in groups for source in group]
    low, high = np.full(len(places), np.inf), np.full(len(places), -np.inf)
    # its results are gone with it at the end, else they would be taken for readers of these values
    probe = Compiled(ov.Model(places, model.get_parameters()), 1)
    for index in range(len(images)):
        for place, value in enumerate(probe(images[index : index + 1], range(len(places)))):
            low[place], high[place] = min(low[place], value.min()), max(high[place], value.max())
    ends = np.cumsum([len(group) for group in groups])
    return [(low[e - len(g) : e].min(), high[e - len(g) : e].max()) for e, g in zip(ends, groups, strict=True)]


def _rounded(value: ov.Output, low: float, high: float) -> ov.Output:
    bounds = eight_bit_bounds(low, high)
    return opset13.fake_quantize(value, *bounds, *bounds, 256).output(0)


def _weight(node: ov.Node) -> ov.Output:
    """A layer's weight as bytes with a scale for each output."""
    weight = np.asarray(node.input_value(1).get_node().data, np.float32)
    axes: tuple[int, ...] = tuple(range(LAYERS[node.get_type_name()], weight.ndim))
    if node.get_type_name() == "MatMul" and not node.get_attributes()["transpose_b"]:
        axes = tuple(axis for axis in range(weight.ndim) if axis != weight.ndim - 1)
    scale = np.abs(weight).max(axes, keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    whole = np.rint(weight / scale).astype(np.int8)
    return opset13.multiply(opset13.convert(opset13.constant(whole), "f32"), opset13.constant(scale)).output(0)
