"""Lets configs name classes of one's own, from the files that lie beside them and in the current folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from bnnlight.console.shipped_configs import shipped_configs


def find_own_code(configs: Iterable[str]) -> None:
    """Lets Python look for modules in the current folder and beside configs, behind all other places.

    ``python -m`` looks in the current folder by itself, an installed program does not. Behind, so that a file there
    takes no library's place.

    Args:
        configs: files; those that come with the package have no code beside them.
    """
    shipped = {path.resolve() for path in shipped_configs().values()}
    files = [Path(name).resolve() for name in configs]
    for folder in (Path.cwd(), *(file.parent for file in files if file.is_file() and file not in shipped)):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
