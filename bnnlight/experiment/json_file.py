"""Writes JSON files whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, record: Any) -> None:
    """Writes a record beside its place and moves it there, so that no reader sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=2) + "\n")
    part.replace(path)
