"""Makes a program smaller: arithmetic in front of a sign goes into its threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnnlight.deploy.freezing.arithmetic import multiply_add
from bnnlight.deploy.freezing.thresholds import find_thresholds
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.program.bits import pack_signs


def fold(program: Program) -> Program:
    """The same network in fewer steps.

    - Per-channel arithmetic whose result only a sign sees becomes the sign's threshold.
    - Multiply-adds of signs become one, and one that changes nothing is dropped.
    - A convolution of signs whose weights are all ±1 gets 1-bit weights.
    - Steps whose value nothing takes are dropped.

    All of it is exact, sign for sign. Batch norms behind real convolutions stay multiply-adds: to multiply them into
    the weights would round otherwise, and of the many numbers behind them a few lie so near to a threshold that
    their sign changes, and with it a good part of what follows (seen in 2 % of the pictures of an hourglass).
    """
    for change in (_into_thresholds, _together, _without_identities, _into_bits):
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
    steps = []
    for step in program.steps:
        chain: list[Step] = []
        source = step.inputs[0] if step.op == "binarize" else ""
        # the chain may begin at the network's input, which no step gives
        while source in by_name and len(consumers[source]) == 1 and _is_monotone(by_name[source]):
            chain.insert(0, by_name[source])
            source = by_name[source].inputs[0]
        steps.append(_compared(step, chain, source) if chain else step)
    return _needed(replace(program, steps=tuple(steps)))


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


def _is_multiply_add(step: Step) -> bool:
    return step.op == "affine" and step.tensors["scale"].ndim == 1


def _without_identities(program: Program) -> Program:
    source: dict[str, str] = {}
    steps = []
    for step in program.steps:
        step = replace(step, inputs=tuple(source.get(name, name) for name in step.inputs))
        plain = _is_multiply_add(step) and "shift" not in step.tensors and (step.tensors["scale"] == 1).all()
        if plain and step.name != program.output:
            source[step.name] = step.inputs[0]
        else:
            steps.append(step)
    return replace(program, steps=tuple(steps))


def _into_bits(program: Program) -> Program:
    by_name = {step.name: step for step in program.steps}
    steps = []
    for step in program.steps:
        before = by_name.get(step.inputs[0])
        signs = step.op in ("conv2d", "linear") and before is not None and before.op == "binarize"
        if signs and "bias" not in step.tensors and (abs(step.tensors["weight"]) == 1).all():
            weight = step.tensors["weight"]
            settings = {**step.settings, "shape": list(weight.shape)}
            if step.op == "conv2d":
                settings["padding_value"] = 0
            step = replace(step, op=f"binary_{step.op}", settings=settings, tensors={"bits": pack_signs(weight)})
        steps.append(step)
    return replace(program, steps=tuple(steps))


def _together(program: Program) -> Program:
    """Multiply-adds of signs become one where that changes neither of the two values that each channel has."""
    steps: dict[str, Step] = {}
    consumers = program.consumers()
    for step in program.steps:
        before = steps.get(step.inputs[0])
        alone = before is not None and len(consumers[before.name]) == 1
        if alone and _is_multiply_add(step) and _is_multiply_add(before) and _is_sign(steps, before.inputs[0]):
            one, other = (
                apply_per_channel(step, apply_per_channel(before, np.full_like(step.tensors["scale"], sign)))
                for sign in (1, -1)
            )
            scale, shift = (one - other) / 2, (one + other) / 2
            if np.array_equal(shift + scale, one) and np.array_equal(shift - scale, other):
                # the later name stays, under which the value is known
                del steps[before.name]
                tensors = {"scale": scale, "shift": shift} if shift.any() else {"scale": scale}
                step = replace(step, inputs=before.inputs, tensors=tensors)
        steps[step.name] = step
    return replace(program, steps=tuple(steps.values()))


def _is_sign(steps: dict[str, Step], name: str) -> bool:
    return name in steps and steps[name].op == "binarize"


def _needed(program: Program) -> Program:
    needed, steps = {program.output}, []
    for step in reversed(program.steps):
        if step.name in needed:
            needed.update(step.inputs)
            steps.insert(0, step)
    return replace(program, steps=tuple(steps))
