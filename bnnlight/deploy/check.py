"""A shipped model measured beside its checkpoint, and what must be equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

SAME_ANSWERS = 0.999
"""Least share of pictures with the same answer."""
OUTPUT_DIFFERENCE = 1e-3
"""Largest relative difference of an output where no sign differs."""
METRIC_DIFFERENCE = 5e-4
"""Largest difference of a metric, a share: 0.05 points."""
METRICS = {"test/acc1": "top-1 accuracy", "test/pckh": "PCKh@0.5", "test/pck": "PCK@0.2"}
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
        wanted, found: figures of the checkpoint and of the model on the same test pictures, by :data:`METRICS`.
        exact: whether both compute with float32; where not, they may differ.
    """

    file: str
    agreement: Agreement
    wanted: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, float] = field(default_factory=dict)
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
        for key, value in self.wanted.items():
            found = f"{100 * self.found[key]:.2f} %, the checkpoint's {100 * value:.2f} %"
            rows.append((METRICS[key], found, f"within {100 * METRIC_DIFFERENCE:.2f} points"))
        return [(what, value, asked if self.exact else "") for what, value, asked in rows]

    def record(self) -> dict[str, Any]:
        """All numbers, as JSON knows them."""
        agreement = dataclasses.asdict(self.agreement)
        if agreement["num_images"] == agreement["num_images_flipped"]:
            agreement["output_difference"] = None
        return {"agreement": agreement, "checkpoint": dict(self.wanted), "model": dict(self.found), "exact": self.exact}

    def failures(self) -> list[str]:
        """What is not as it must be; nothing where the model does not compute with float32."""
        found = []
        if self.agreement.same < SAME_ANSWERS:
            found.append(f"{100 * self.agreement.same:.2f} % of the answers are the same")
        if not self.agreement.output_difference <= OUTPUT_DIFFERENCE:
            found.append(f"outputs differ by {self.agreement.output_difference:.1e} where no activation bit does")
        for key, value in self.wanted.items():
            if not abs(self.found[key] - value) <= METRIC_DIFFERENCE:
                found.append(f"{METRICS[key]} differs by {100 * abs(self.found[key] - value):.2f} points")
        return found if self.exact else []

    def print(self) -> None:
        """Shows the comparison as a table."""
        table = Table(title=f"{self.file} beside its checkpoint", title_justify="left", show_header=False)
        for row in self.rows():
            table.add_row(*row)
        console = Console()
        # a table folded to a narrow page cannot be read
        Console(width=max(console.width, Console(width=1000).measure(table).maximum)).print(table)


def _number(agreement: Agreement) -> str:
    if agreement.num_images == agreement.num_images_flipped:
        return "there are no others"
    return f"{agreement.output_difference:.1e}"
