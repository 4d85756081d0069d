"""Activation functions in standard ONNX operators, in the order in which torch computes them.

Each takes the graph that is being made (of :mod:`bnnlight.deploy.formats.onnx_graph`) and a step, and adds its nodes.
"""

from __future__ import annotations

import math
from typing import Any

from bnnlight.deploy.program import Step


def silu(g: Any, step: Step) -> None:
    # x / (1 + exp(-x)) as torch computes it: onnxruntime's sigmoid is none below -18
    (x,) = step.inputs
    g.node("Div", x, g.node("Add", g.node("Exp", g.node("Neg", x)), g.number(1)), name=step.name)


def gelu(g: Any, step: Step) -> None:
    (x,) = step.inputs
    if step.settings["approximate"] == "none":
        curve = g.node("Erf", g.node("Mul", x, g.number(math.sqrt(0.5))))
        half = g.node("Mul", x, g.number(0.5))
    else:
        cube = g.node("Mul", g.node("Mul", x, x), x)
        inner = g.node("Add", x, g.node("Mul", cube, g.number(0.044715)))
        curve = g.node("Tanh", g.node("Mul", inner, g.number(math.sqrt(2 / math.pi))))
        half = g.node("Mul", x, g.number(0.5))
    g.node("Mul", half, g.node("Add", curve, g.number(1)), name=step.name)


def hard(g: Any, step: Step) -> None:
    """Hardsigmoid and Hardswish: the operators of these names divide otherwise than torch does."""
    (x,) = step.inputs
    bounded = g.node("Clip", g.node("Add", x, g.number(3)), g.number(0), g.number(6))
    if step.op == "hardswish":
        bounded = g.node("Mul", x, bounded)
    g.node("Div", bounded, g.number(6), name=step.name)
