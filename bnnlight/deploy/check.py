"""How far a shipped model agrees with its checkpoint, and how far it must."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SAME_ANSWERS, TOO_FEW = 0.999, 0.97
"""Least share of pictures with the same answer: as it should be, and below which the model is taken for wrong."""
OUTPUT_DIFFERENCE = 1e-3
"""Largest relative difference of an output where no sign differs; beyond it the model is wrong."""
METRIC_DIFFERENCE, TOO_FAR = 5e-4, 5e-3
"""Largest difference of a metric, a share: as it should be (0.05 points), and beyond which the model is wrong."""
METRICS = {
    "test/acc1": "top-1 accuracy",
    "test/pckh": "PCKh@0.5",
    "test/pck": "PCK@0.2",
    "test/pck_box": "PCK@0.2 of the box",
    "test/ap": "AP by OKS",
}
"""The test's figures that a shipped model must reach, and their names."""


@dataclass
class Agreement:
    """How far two networks agree.

    Attributes:
        num_images: pictures compared.
        num_same: pictures with the same answer: the same best class, or the same pixel for every joint.
        num_signs: binarized activations compared, of all binary layers and pictures.
        num_flipped: those of other sign. Where a number lies on its threshold, rounding decides.
        num_images_flipped: pictures with at least one of them.
        output_difference: largest ‖a - b‖∞ / ‖a‖∞ of a picture's outputs a and b, over pictures without one.
    """

    num_images: int = 0
    num_same: int = 0
    num_signs: int = 0
    num_flipped: int = 0
    num_images_flipped: int = 0
    output_difference: float = 0.0

    @property
    def same(self) -> float:
        """Share of pictures with the same answer."""
        return self.num_same / self.num_images if self.num_images else 0.0

    @property
    def flipped(self) -> float:
        """Share of signs that differ."""
        return self.num_flipped / self.num_signs if self.num_signs else 0.0


@dataclass(frozen=True)
class Check:
    """The comparison of one shipped model.

    Attributes:
        file: name of its main file.
        agreement: of outputs and signs.
        checkpoint, model: figures of the two on the same test pictures, by :data:`METRICS`.
        exact: whether both compute with float32; where not, they may differ.
    """

    file: str
    agreement: Agreement
    checkpoint: Mapping[str, float] = field(default_factory=dict)
    model: Mapping[str, float] = field(default_factory=dict)
    exact: bool = True

    def rows(self) -> list[tuple[str, str, str]]:
        """What was compared, what was found, and what is asked for where that is to be judged."""
        a = self.agreement
        rows = [
            ("pictures", f"{a.num_images:,}", ""),
            ("same answer", f"{100 * a.same:.2f} %", f"at least {100 * SAME_ANSWERS:.1f} %"),
            ("activation bits that differ", f"{a.num_flipped:,} of {a.num_signs:,} ({100 * a.flipped:.2g} %)", ""),
            ("pictures with such bits", f"{a.num_images_flipped:,}", ""),
            ("largest relative difference on the others", _number(a), f"at most {OUTPUT_DIFFERENCE:.0e}"),
        ]
        for key, value in self.checkpoint.items():
            figure = f"{100 * self.model[key]:.2f} %, the checkpoint's {100 * value:.2f} %"
            rows.append((METRICS[key], figure, f"within {100 * METRIC_DIFFERENCE:.2f} points"))
        return [(what, value, limit if self.exact else "") for what, value, limit in rows]

    def record(self) -> dict[str, Any]:
        """All numbers, as JSON knows them."""
        agreement = dataclasses.asdict(self.agreement)
        if agreement["num_images"] == agreement["num_images_flipped"]:
            agreement["output_difference"] = None
        figures = {"checkpoint": dict(self.checkpoint), "model": dict(self.model)}
        return {"agreement": agreement, **figures, "exact": self.exact}

    def failures(self) -> list[str]:
        """Why the model is wrong; nothing where it does not compute with float32, and so may differ.

        Where an activation bit differs because rounding decided it, what follows differs too: an engine that adds
        up in another order than torch must be allowed some such pictures.
        """
        reasons = []
        if self.agreement.same < TOO_FEW:
            reasons.append(f"only {100 * self.agreement.same:.2f} % of the answers are the same")
        if not self.agreement.output_difference <= OUTPUT_DIFFERENCE:
            reasons.append(f"outputs differ by {self.agreement.output_difference:.1e} where no activation bit does")
        reasons += [
            f"{METRICS[key]} differs by {100 * difference:.2f} points"
            for key, difference in self._differences().items()
            # a single picture may weigh more than that
            if not difference <= max(TOO_FAR, 2 / self.agreement.num_images)
        ]
        return reasons if self.exact else []

    def warning(self) -> str | None:
        """What is not wrong and not as it should be, on one line."""
        a = self.agreement
        near = all(d <= max(METRIC_DIFFERENCE, 1.01 / a.num_images) for d in self._differences().values())
        if not self.exact or self.failures() or (a.same >= SAME_ANSWERS and near):
            return None
        return (
            f"{a.num_images - a.num_same:,} of {a.num_images:,} answers differ: this engine adds up in another order "
            f"than torch, so that bits flip where a number lies on its threshold ({a.num_images_flipped:,} pictures)"
        )

    def _differences(self) -> dict[str, float]:
        return {key: abs(self.model[key] - value) for key, value in self.checkpoint.items()}


def _number(agreement: Agreement) -> str:
    if agreement.num_images == agreement.num_images_flipped:
        return "there are no others"
    return f"{agreement.output_difference:.1e}"
