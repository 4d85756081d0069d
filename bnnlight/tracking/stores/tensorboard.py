"""Reads TensorBoard's event files with its own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bnnlight.tracking.stores.stored import Stored, name_of

_EVENTS = "events.out.tfevents.*"
_CONFIG = "hparams.yaml"
"""What Lightning writes beside the event files."""
_OF_LIGHTNING = "hp_metric"
"""A figure without meaning that Lightning logs with the config."""


def find_event_folders(folder: Path) -> list[Path]:
    """Folders with event files, each of which is a run to TensorBoard; sorted.

    Args:
        folder: with event files in it or in folders below.
    """
    return sorted({file.parent for file in folder.rglob(_EVENTS)})


def read_event_folder(folder: Path) -> Stored:
    """Reads all figures of a run; those of starts that follow each other in the folder are one run's.

    Args:
        folder: with event files.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ModuleNotFoundError as error:
        raise ValueError(f"{folder}: TensorBoard's files are read by its package: pip install tensorboard") from error
    stored = Stored(name_of(folder, "tensorboard"), config=_config(folder))
    # all figures, where TensorBoard itself keeps 10,000 of them; of what else there is, nothing
    nothing = {"images": 1, "audio": 1, "histograms": 1, "compressedHistograms": 1}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, TENSORS: 0, **nothing})
    events.Reload()
    tags = events.Tags()
    for tag in tags["scalars"]:
        stored.points += [(tag, event.step, event.value) for event in events.Scalars(tag)]
    for tag in tags[TENSORS]:  # as other programs than torch write figures
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            stored.points += [(tag, e.step, float(make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
    stored.points = [point for point in stored.points if point[0] != _OF_LIGHTNING]
    if not stored.points:
        stored.problems.append(f"{folder}: no figures in its event files")
    return stored


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load((folder / _CONFIG).read_text())
    except (OSError, yaml.YAMLError):  # none was logged, or one with classes of another program's
        return {}
    return config if isinstance(config, dict) else {}
