"""Lets configs name classes of one's own, from the files that lie beside them and in the current folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bnnlight.console.shipped_configs import is_file, shipped_configs

_TOLD = "# classes of its own: "
"""Begins a line of a run's config, behind which stands the folder of their files."""


def find_own_code(configs: Iterable[str]) -> None:
    """Lets Python look for modules in the current folder and beside configs, behind all other places.

    ``python -m`` looks in the current folder by itself, an installed program does not. Behind, so that a file there
    takes no library's place. A run's config tells besides where the run had its classes from.

    Args:
        configs: files; those that come with the package have no code beside them.
    """
    shipped = {path.resolve() for path in shipped_configs().values()}
    files = [file for name in configs if is_file(name) and (file := Path(name).resolve()) not in shipped]
    folders = [Path.cwd(), *(file.parent for file in files), *(folder for file in files for folder in _told(file))]
    for folder in folders:
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))


def _told(config: Path) -> Iterator[Path]:
    with config.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.startswith("#"):
                return
            if line.startswith(_TOLD):
                yield Path(line.removeprefix(_TOLD).strip())


def with_own_folders(config: Mapping[str, Any], text: str) -> str:
    """A run's config with a line for each folder that its own classes are from, for :func:`find_own_code`.

    Args:
        config: as plain data.
        text: the same as YAML.
    """
    folders = {folder: None for name in _class_paths(config) if (folder := _folder_of(name.partition(".")[0]))}
    return "".join(f"{_TOLD}{folder}\n" for folder in folders) + text


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(name := value.get("class_path"), str):
            yield name
        for inner in value.values():
            yield from _class_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _class_paths(inner)


def _folder_of(module: str) -> Path | None:
    """Where Python looked for a module that is loaded; None for those of this package, of Python and installed ones."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or module == "bnnlight" or module in sys.stdlib_module_names:
        return None
    folder = Path(file).resolve().parents[1 if Path(file).name == "__init__.py" else 0]
    return None if {"site-packages", "dist-packages"} & set(folder.parts) else folder
