"""Makes a program smaller: arithmetic goes into thresholds and into the weights of real convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bnnlight.deploy.arithmetic import multiply_add
from bnnlight.deploy.bits import pack_signs
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.thresholds import find_thresholds


def fold(program: Program) -> Program:
    """The same network in fewer steps.

    - Per-channel arithmetic whose result only a sign sees becomes the sign's threshold.
    - Two multiply-adds in a row become one, and one that changes nothing is dropped.
    - A convolution of signs whose weights are all ±1 gets 1-bit weights.
    - A multiply-add behind a real convolution or linear layer goes into its weight and bias.
    - Steps whose value nothing takes are dropped.

    The first is exact, sign for sign; the others change results by float32 rounding alone.
    """
    # thresholds before anything is rounded; bits before a scale goes into the weights
    for change in (_into_thresholds, _together, _without_identities, _into_bits, _into_weights):
        program = change(program)
    return _needed(program)


def apply_per_channel(step: Step, x: np.ndarray) -> np.ndarray:
    """What a step of :data:`MONOTONE` makes of one number per channel, ``(C,)`` float32, rounded as torch rounds it.

    An affine step is rounded once, as torch's batch norm is; what torch rounds twice is two steps before folding.
    """
    if step.op == "affine":
        return multiply_add(x, step.tensors["scale"], step.tensors.get("shift", np.float32(0)))
    if step.op == "prelu":
        return np.where(x >= 0, x, multiply_add(x, step.tensors["slope"], np.float32(0)))
    if step.op == "clamp":
        return np.clip(x, np.float32(step.settings["min"]), np.float32(step.settings["max"]))
    return np.maximum(x, 0)


MONOTONE = ("affine", "prelu", "clamp", "relu")
"""Operations that rise or fall with each number; a PReLU only where no slope is negative."""


def _is_monotone(step: Step) -> bool:
    if step.op == "prelu":
        return bool((step.tensors["slope"] >= 0).all())
    return _is_multiply_add(step) if step.op == "affine" else step.op in MONOTONE


def _into_thresholds(program: Program) -> Program:
    by_name = {step.name: step for step in program.steps}
    consumers = program.consumers()
    made = []
    for step in program.steps:
        chain: list[Step] = []
        source = step.inputs[0] if step.op == "binarize" else ""
        # the chain may begin at the network's input, which no step gives
        while source in by_name and len(consumers[source]) == 1 and _is_monotone(by_name[source]):
            chain.insert(0, by_name[source])
            source = by_name[source].inputs[0]
        made.append(_compared(step, chain, source) if chain else step)
    return _needed(replace(program, steps=tuple(made)))


def _compared(step: Step, chain: list[Step], source: str) -> Step:
    """The binarization of a chain's result, as one of its first input."""
    old, turn = step.tensors["threshold"], step.tensors.get("direction", np.float32(1))

    def positive(x: np.ndarray) -> np.ndarray:
        for link in chain:
            x = apply_per_channel(link, x)
        return turn * x >= turn * old

    threshold, direction = find_thresholds(positive, len(old))
    tensors = {"threshold": threshold}
    if (direction < 0).any():
        tensors["direction"] = direction
    return replace(step, inputs=(source,), tensors=tensors)


def _pairs(program: Program, first: tuple[str, ...], merge: Callable[[Step, Step], Step]) -> Program:
    """Merges each per-channel multiply-add into the step before it, where that is one of ``first``."""
    steps: dict[str, Step] = {}
    consumers = program.consumers()
    for step in program.steps:
        before = steps.get(step.inputs[0])
        alone = before is not None and len(consumers[before.name]) == 1
        fits = alone and before.op in first and (before.op != "affine" or _is_multiply_add(before))
        if fits and _is_multiply_add(step):
            # the merged step keeps the later name, under which its value is known
            del steps[before.name]
            step = replace(merge(before, step), name=step.name)
        steps[step.name] = step
    return replace(program, steps=tuple(steps.values()))


def _is_multiply_add(step: Step) -> bool:
    return step.op == "affine" and step.tensors["scale"].ndim == 1


def _without_identities(program: Program) -> Program:
    source: dict[str, str] = {}
    kept = []
    for step in program.steps:
        step = replace(step, inputs=tuple(source.get(name, name) for name in step.inputs))
        plain = _is_multiply_add(step) and "shift" not in step.tensors and (step.tensors["scale"] == 1).all()
        if plain and step.name != program.output:
            source[step.name] = step.inputs[0]
        else:
            kept.append(step)
    return replace(program, steps=tuple(kept))


def _into_bits(program: Program) -> Program:
    by_name = {step.name: step for step in program.steps}
    made = []
    for step in program.steps:
        before = by_name.get(step.inputs[0])
        signs = step.op in ("conv2d", "linear") and before is not None and before.op == "binarize"
        if signs and "bias" not in step.tensors and (abs(step.tensors["weight"]) == 1).all():
            weight = step.tensors["weight"]
            settings = {**step.settings, "shape": list(weight.shape)}
            if step.op == "conv2d":
                settings["padding_value"] = 0
            step = replace(step, op=f"binary_{step.op}", settings=settings, tensors={"bits": pack_signs(weight)})
        made.append(step)
    return replace(program, steps=tuple(made))


def _into_weights(program: Program) -> Program:
    def merge(layer: Step, affine: Step) -> Step:
        scale = affine.tensors["scale"].astype(np.float64)
        weight = layer.tensors["weight"].astype(np.float64)
        bias = scale * layer.tensors.get("bias", np.float64(0)) + affine.tensors.get("shift", np.float64(0))
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        return replace(layer, tensors={"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)})

    return _pairs(program, ("conv2d", "linear"), merge)


def _together(program: Program) -> Program:
    def merge(one: Step, two: Step) -> Step:
        scale = one.tensors["scale"].astype(np.float64) * two.tensors["scale"]
        shift = one.tensors.get("shift", np.float64(0)) * two.tensors["scale"] + two.tensors.get("shift", np.float64(0))
        tensors = {"scale": scale.astype(np.float32)}
        if np.any(shift):
            tensors["shift"] = np.broadcast_to(shift, scale.shape).astype(np.float32)
        return replace(one, tensors=tensors)

    return _pairs(program, ("affine",), merge)


def _needed(program: Program) -> Program:
    wanted, kept = {program.output}, []
    for step in reversed(program.steps):
        if step.name in wanted:
            wanted.update(step.inputs)
            kept.insert(0, step)
    return replace(program, steps=tuple(kept))
