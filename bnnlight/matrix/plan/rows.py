"""What a row of a matrix is made of: a method, an optimizer, and the search that chooses its value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bnnlight.matrix.plan.reading import Options


@dataclass(frozen=True)
class Search:
    """Values of one option, of which each method takes its best.

    Attributes:
        option: of `bnnlight fit`, such as ``model.optimizer.lr``.
        values: that are tried, in rising order.
        seeds: of the search runs.
        options: of the search runs alone, in front of the matrix's own.
    """

    option: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    options: Options


@dataclass(frozen=True)
class Optimizer:
    """What a method is trained with.

    One without configs and options is the plan's own, the one that the plan's config and options name. It adds nothing
    to a row's name, folder or options: its rows are those of the plan without the axis, and their runs are kept.

    Attributes:
        name: as a heading and in the names of its rows.
        configs: overlays, behind those of the method.
        options: in place of the plan's and the method's.
        values: method → those of the searched option that are tried with it; the search's own unless given.
        methods: that are run with it.
        seeds: of its final runs; the methods' own unless given.
        rate_of: the optimizer whose search chooses its values, method by method; its own name unless it takes another
            one's.
    """

    name: str
    configs: tuple[Path, ...]
    options: Options
    values: Mapping[str, tuple[float, ...]]
    methods: tuple[str, ...]
    seeds: tuple[int, ...] | None
    rate_of: str

    @property
    def is_own(self) -> bool:
        """Whether it is the plan's own."""
        return not self.configs and not self.options

    def row(self, method: str) -> str:
        """The name of the row that a method has with it."""
        return method if self.is_own else f"{method}, {self.name}"


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        name: of the row.
        base: the method's own name, without an optimizer's.
        configs: overlays, each a further ``--config``, in front of the optimizer's.
        options: of all its runs, in front of the optimizer's.
        seeds: of its final runs.
        rate_of: the row whose search chooses its value; its own name unless it takes another one's.
        group: heading under which it stands with those beside it, or "".
        search: that chooses its value, with the values that its optimizer tries; None where nothing is searched.
        optimizer: of the row; None where the plan has no optimizers.
    """

    name: str
    base: str
    configs: tuple[Path, ...]
    options: Options
    seeds: tuple[int, ...]
    rate_of: str
    group: str = ""
    search: Search | None = None
    optimizer: Optimizer | None = None
