"""Binary convolutions of an OpenVINO model as ordinary ones on ±1, where OpenVINO has no kernels on bits."""

from __future__ import annotations

import platform

import numpy as np
import openvino as ov
from openvino import opset1, opset13

from bnnlight.deploy.program.bits import unpack_signs

_WITH_KERNELS = ("x86_64", "amd64", "x86", "i386", "i686")


def has_kernels_on_bits() -> bool:
    """Whether OpenVINO computes binary convolutions on bits on this kind of processor.

    Its plug-in for ARM falls back to a reference loop, which takes some 50 times as long as a real convolution.
    """
    return platform.machine().lower() in _WITH_KERNELS


def on_floats(model: ov.Model) -> None:
    """Replaces each ``BinaryConvolution`` behind its two-level ``FakeQuantize`` by a ``Convolution`` on ±1 in float32.

    Sums of ±1 are whole numbers, which float32 holds up to 2²⁴: none is lost. Names stay.

    Args:
        model: of :func:`bnnlight.deploy.formats.openvino_graph.to_openvino`, or read from its file; it is changed.
    """
    signs: dict[str, ov.Output] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "BinaryConvolution":
            continue
        bits, weight = node.input_value(0).get_node(), node.input_value(1).get_node()
        if bits.get_friendly_name() not in signs:
            signs[bits.get_friendly_name()] = _signs(bits)
        x, settings = signs[bits.get_friendly_name()], node.get_attributes()
        begin, end = list(settings["pads_begin"]), list(settings["pads_end"])
        if settings["pad_value"] and any(begin + end):
            value = np.float32(settings["pad_value"])
            sides = (np.array([0, 0, *pads], np.int64) for pads in (begin, end))
            x, begin, end = opset1.pad(x, *sides, "constant", value).output(0), [0, 0], [0, 0]
        real = unpack_signs(weight.data, tuple(weight.get_output_shape(0)))
        y = opset13.convolution(x, real, list(settings["strides"]), begin, end, list(settings["dilations"]))
        # α stays out of the weights, whose sums would not be exact then
        y = opset13.round(y)
        y.set_friendly_name(node.get_friendly_name())
        y.output(0).get_tensor().set_names(node.output(0).get_names())
        node.output(0).replace(y.output(0))


def _signs(bits: ov.Node) -> ov.Output:
    """±1 for what a ``FakeQuantize`` with the levels 0 and 1, in this order or the other, makes of its input."""
    bound, low, high = (bits.input_value(place).get_node().data for place in (1, 3, 4))
    above, below = (opset13.constant((2 * level - 1).astype(np.float32)) for level in (high, low))
    return opset13.select(opset13.greater(bits.input_value(0), opset13.constant(bound)), above, below).output(0)
