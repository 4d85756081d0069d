"""What Larq Compute Engine cannot take of a program, told before anything is written."""

from __future__ import annotations

from collections.abc import Mapping

from bnnlight.deploy.program import Program, Shape, Step

WORD = 32
"""Channels whose bits make a word."""
MOST_NAMES = 5
"""More layers of one reason are counted, not named."""


def refuse(program: Program, shapes: Mapping[str, Shape]) -> None:
    """Raises where a step cannot be written.

    Args:
        program: that is to be written.
        shapes: of its values, for one picture.

    Raises:
        ValueError: on one line, for each reason the layers and what to change.
    """
    reasons: dict[str, list[str]] = {}
    for step in program.steps:
        if reason := _reason(step, shapes):
            reasons.setdefault(reason, []).append(step.name)
    if reasons:
        layers = "; ".join(f"{_names(names)} ({reason})" for reason, names in reasons.items())
        raise ValueError(f"Larq Compute Engine cannot take these layers: {layers}")


def _reason(step: Step, shapes: Mapping[str, Shape]) -> str | None:
    s = step.settings
    if step.op == "max_pool2d" and tuple(s["dilation"]) != (1, 1):
        return f"a max pool with dilation {tuple(s['dilation'])}: pool without dilation"
    dims = {len(shapes[name]) for name in step.inputs}
    if (step.op == "stack" and not dims <= {1, 3}) or (step.op != "flatten" and max(dims) > 3):
        return "computes on stacked maps: stack them last of all"
    return None


def _names(names: list[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
