"""Prints tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def print_whole(table: Table) -> None:
    """Prints a table as wide as it is: folded to a narrow page it could not be read, so the page rather scrolls."""
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)
