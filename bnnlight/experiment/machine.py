"""The processor that figures were measured on, in words. Needs neither torch nor OpenVINO."""

from __future__ import annotations

import platform
from pathlib import Path

from bnnlight.deploy.formats.workers import num_cores


def processor() -> dict[str, str]:
    """What Linux tells of the last core, by its names; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def processor_name() -> str:
    """The processor's name, or its architecture where none is told, as on some ARM processors."""
    return processor().get("model name") or platform.processor() or platform.machine()


def machine() -> str:
    """The processor's name and the number of cores that this process may use."""
    return f"{processor_name()}, {num_cores()} cores"
