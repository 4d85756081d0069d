"""The configs that come with the package, by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
"""In an installed package, and in the project's own folder."""
_OPTIONS = ("--config", "-c")


def shipped_configs() -> dict[str, Path]:
    """Name → file of each config that comes with the package, such as ``quickstart`` or ``methods/tucker``."""
    folder = next((place for place in _PLACES if (place / "quickstart.yaml").is_file()), _PLACES[0])
    files = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.parts), file))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def shipped_config(name: str) -> Path | None:
    """The file of a config that comes with the package; None where none is called so.

    Args:
        name: of :func:`shipped_configs`; it may begin with ``configs/`` and end in ``.yaml`` as in the project's own
            folder.
    """
    return shipped_configs().get(_short(name))


def _short(name: str) -> str:
    return name.removeprefix("./").removeprefix("configs/").removesuffix(".yaml")


def is_file(name: str | Path) -> bool:
    """Whether there is such a file. A config that is given as text may be too long for a file's name."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def find_config(name: str) -> str:
    """The path of a config.

    Args:
        name: of a file; or, where none is there, of a config that comes with the package; or text that is none of both,
            such as options in place of a file, which is returned as it is.

    Raises:
        FileNotFoundError: there is neither a file nor a config of that name.
    """
    if is_file(name):
        return name
    if not name.strip():
        raise FileNotFoundError("--config is empty: give a file, or a name of `bnnlight configs`")
    shipped = shipped_config(name)
    if shipped:
        return str(shipped)
    if not re.fullmatch(r"[^\n{}:]*[^\n{}:-]", name) or Path(name).exists():
        return name
    names = {part: whole for whole in reversed(shipped_configs()) for part in (whole.rpartition("/")[2], whole)}
    near = get_close_matches(_short(name), names, 1)
    hint = f"did you mean {names[near[0]]}, which comes with bnnlight?" if near else "see `bnnlight configs`"
    raise FileNotFoundError(f"no such config: {name}; {hint}")


def with_found_configs(args: Sequence[str]) -> list[str]:
    """A command line in which the names behind ``--config`` are paths.

    Raises:
        FileNotFoundError: see :func:`find_config`.
    """
    command_line: list[str] = []
    for word in args:
        option, is_joined, value = word.partition("=")
        if command_line and command_line[-1] in _OPTIONS:
            command_line.append(find_config(word))
        elif option in _OPTIONS and is_joined:
            command_line.append(f"{option}={find_config(value)}")
        else:
            command_line.append(word)
    return command_line
