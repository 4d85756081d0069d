"""`Stored`: what a tracker has kept of one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Stored:
    """One run, as a tracker has kept it.

    Attributes:
        name: of the run.
        run_id: the tracker's; "" where it has none.
        config: nested or flat, as far as it was logged.
        points: key, step and value of each figure, in the order of logging.
        problems: what could not be read.
    """

    name: str
    run_id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    points: list[tuple[str, int, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[dict[str, float]]:
        """Each figure as a row ``{"step": …, key: value}``."""
        for key, step, value in self.points:
            yield {"step": step, key: value}


def name_of(folder: Path, inside: str) -> str:
    """What a run is called whose tracker gives it no name: its folder and the one above.

    Args:
        folder: with the tracker's files.
        inside: name of the folder that a run of ours keeps them in.
    """
    parts = folder.resolve().parts
    return "-".join((parts[:-1] if parts[-1] == inside else parts)[-2:])
