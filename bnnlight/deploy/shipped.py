"""The trained models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "models", _PACKAGE.parent / "models")
"""In an installed package, and in the project's own folder."""


def shipped_models() -> dict[str, Path]:
    """Name → folder of each model that comes with the package, in order."""
    for place in _PLACES:
        models = {folder.name: folder for folder in sorted(place.glob("*")) if (folder / "README.md").is_file()}
        if models:
            return models
    return {}
