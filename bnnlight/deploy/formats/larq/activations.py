"""Functions of each number that take several of TensorFlow Lite's operators, or one with options.

Each takes the graph that is being made and a step, and adds its operators.
"""

from __future__ import annotations

import numpy as np

from bnnlight.deploy.formats.larq.graph import Graph
from bnnlight.deploy.program import Step


def clamp(g: Graph, step: Step) -> None:
    low, high = (step.settings[name] for name in ("min", "max"))
    x = g.value(step.inputs[0])
    if (low, high) in RELUS:
        g.simple(step, RELUS[low, high], x)
    else:
        least, most = (g.file.constant(np.float32(bound)) for bound in (low, high))
        g.simple(step, "MINIMUM", g.simple(step, "MAXIMUM", x, least, last=False), most)


RELUS = {(0, 6): "RELU6", (-1, 1): "RELU_N1_TO_1"}
"""Bounds of a clamp that has an operator of its own."""


def round_(g: Graph, step: Step) -> None:
    unit = np.float32(2.0 ** -step.settings["fraction_bits"])
    # a power of two: neither product is rounded
    whole = g.simple(step, "MUL", g.value(step.inputs[0]), g.file.constant(1 / unit), last=False)
    nearest = g.simple(step, "ROUND", whole, last=False)
    multiple = g.simple(step, "MUL", nearest, g.file.constant(unit), last=False)
    least, most = (g.file.constant(np.float32(step.settings[name])) for name in ("min", "max"))
    g.simple(step, "MINIMUM", g.simple(step, "MAXIMUM", multiple, least, last=False), most)


def silu(g: Graph, step: Step) -> None:
    x = g.value(step.inputs[0])
    g.simple(step, "MUL", x, g.simple(step, "LOGISTIC", x, last=False))


def hardsigmoid(g: Graph, step: Step) -> None:
    raised = g.simple(step, "ADD", g.value(step.inputs[0]), g.file.constant(np.float32(3)), last=False)
    g.simple(step, "DIV", g.simple(step, "RELU6", raised, last=False), g.file.constant(np.float32(6)))


def gelu(g: Graph, step: Step) -> None:
    approximate = step.settings["approximate"] == "tanh"
    g.simple(step, "GELU", g.value(step.inputs[0]), Approximate=approximate)
