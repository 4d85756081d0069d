"""The same program with no sum turned round behind a layer, which FPGA compilers cannot write."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.program.bits import pack_signs, unpack_signs

LAYERS = ("conv2d", "binary_conv2d", "linear", "binary_linear")
"""Operations whose weights can change their signs."""


def rising(program: Program) -> Program:
    """The same network, in which no multiply-add or sign behind a layer falls with that layer's sum.

    Compilers cannot turn thresholds round. Weights of such channels change their signs, and so does what follows.
    """
    consumers = program.consumers()
    changed: dict[str, Step] = {}
    for step in program.steps:
        behind = _alone_behind(step, consumers) if step.op in LAYERS else []
        slopes = [taker.tensors[name] for taker in behind for name in ("scale", "direction") if name in taker.tensors]
        if not slopes or any(slope.ndim > 1 for slope in slopes):
            continue
        turn = np.where(np.prod(np.sign(slopes), axis=0) < 0, np.float32(-1), np.float32(1))
        if (turn < 0).any():
            changed[step.name], changed[behind[0].name] = _turned(step, turn), _turned(behind[0], turn)
    return replace(program, steps=tuple(changed.get(step.name, step) for step in program.steps))


def _alone_behind(step: Step, consumers: dict[str, list[Step]]) -> list[Step]:
    """The multiply-adds, and a sign at their end, that alone take a step's value."""
    behind: list[Step] = []
    while len(consumers[step.name]) == 1 and consumers[step.name][0].op in ("affine", "binarize"):
        step = consumers[step.name][0]
        behind.append(step)
        if step.op == "binarize":
            break
    return behind


def _turned(step: Step, turn: np.ndarray) -> Step:
    tensors = dict(step.tensors)
    if "bits" in tensors:
        shape = tuple(step.settings["shape"])
        rows = turn.reshape(-1, *[1] * (len(shape) - 1))
        tensors["bits"] = pack_signs(unpack_signs(tensors["bits"], shape) * rows)
    for name in ("weight", "bias", "scale", "threshold", "direction"):
        if name in tensors:
            tensors[name] = tensors[name] * turn.reshape(-1, *[1] * (tensors[name].ndim - 1))
    return replace(step, tensors=tensors)
