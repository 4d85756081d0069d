"""What a shipped model says of itself: its task, the pictures that it takes, what its output means, its origin."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bnnlight.deploy.seal import EMPTY, PREFIX
from bnnlight.imaging.skeletons import Skeleton

FORMAT = 1
"""Number of the file format; a reader takes this one alone."""


@dataclass(frozen=True)
class PictureInput:
    """What is done to a picture before the network.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        size_px: width and height of the network's input.
        mean, std: of each channel, on the scale 0..1.
        resize_px: classification: length to which the shorter side is brought before the middle is cut out; None
            for pose, where the square round the picture is brought to ``size_px``.
    """

    channels: int
    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_px: int | None = None


@dataclass(frozen=True)
class Manifest:
    """All that a user of a shipped model has to know.

    Attributes:
        task: ``classification`` or ``pose``.
        network: class of the network, with its module.
        input: how a picture becomes the network's input.
        classes: names, in the order of the logits.
        skeleton: of the joints, in the order of the heat maps.
        sigmoid: pose: whether the heat maps are logits.
        flip_test: pose: whether the heat maps of a picture and of its mirror image are averaged.
        metrics: name → value on the data set's test pictures, as the checkpoint reached it.
        origin: texts: ``commit``, ``command``, ``config_sha256``, ``checkpoint_sha256``, ``made``, ``bnnlight``.
    """

    task: str
    network: str
    input: PictureInput
    classes: tuple[str, ...] = ()
    skeleton: Skeleton | None = None
    sigmoid: bool = False
    flip_test: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As one line of JSON, with the place for the file's checksum."""
        record = {"format": FORMAT, "seal": PREFIX + EMPTY, **dataclasses.asdict(self)}
        return json.dumps(record, ensure_ascii=True, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> tuple[Manifest, str]:
        """The manifest and the file's seal.

        Raises:
            ValueError: it is no manifest, of another format's version, or something in it is of the wrong kind.
        """
        record = _object(_parsed(text), "the manifest")
        version = record.pop("format", None)
        if version != FORMAT:
            raise ValueError(f"its format is {version!r}, this version of bnnlight reads {FORMAT}")
        try:
            seal = _text(record.pop("seal"), "seal")
            made = dict(
                task=_text(record.pop("task"), "task"),
                network=_text(record.pop("network"), "network"),
                input=_input(_object(record.pop("input"), "input")),
                classes=tuple(_text(name, "classes") for name in _list(record.pop("classes"), "classes")),
                skeleton=_skeleton(record.pop("skeleton")),
                sigmoid=_flag(record.pop("sigmoid"), "sigmoid"),
                flip_test=_flag(record.pop("flip_test"), "flip_test"),
                metrics={k: _number(v, k) for k, v in _object(record.pop("metrics"), "metrics").items()},
                origin={k: _text(v, k) for k, v in _object(record.pop("origin"), "origin").items()},
            )
        except KeyError as error:
            raise ValueError(f"its manifest lacks {error}") from error
        if record:
            raise ValueError(f"its manifest has an unknown entry {next(iter(record))!r}")
        if made["task"] not in ("classification", "pose") or (made["task"] == "pose") != (made["skeleton"] is not None):
            raise ValueError(f"its manifest names no task that bnnlight knows: {made['task']!r}")
        return cls(**made), seal


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its manifest is not valid JSON: {error}") from error


def _input(record: dict[str, Any]) -> PictureInput:
    channels, size = (_whole(record.pop(name), name, 2**14) for name in ("channels", "size_px"))
    resize = record.pop("resize_px")
    means = [tuple(_number(v, name) for v in _list(record.pop(name), name)) for name in ("mean", "std")]
    if channels not in (1, 3) or any(len(values) != channels for values in means) or min(means[1]) <= 0:
        raise ValueError("its manifest's input needs 1 or 3 channels, and a mean and a std above 0 for each")
    return PictureInput(channels, size, *means, resize if resize is None else _whole(resize, "resize_px", 2**14))


def _skeleton(record: Any) -> Skeleton | None:
    if record is None:
        return None
    record = _object(record, "skeleton")
    joints = tuple(_text(name, "joints") for name in _list(record["joints"], "joints"))
    limbs = [_list(limb, "limbs") for limb in _list(record["limbs"], "limbs")]
    torso, excluded = _list(record["torso"], "torso"), _list(record["excluded"], "excluded")
    indices = [*(i for limb in limbs for i in limb), *torso, *excluded]
    if any(type(i) is not int or not 0 <= i < len(joints) for i in indices) or {2} != {len(p) for p in (*limbs, torso)}:
        raise ValueError("its manifest's skeleton names joints that are not there")
    made = Skeleton(joints, tuple(map(tuple, limbs)), tuple(torso), tuple(excluded))
    try:
        made.mirrored  # noqa: B018  (a left joint without a right one has no mirror image)
    except ValueError as error:
        raise ValueError(f"its manifest's skeleton is not symmetric: {error}") from error
    return made


def _object(value: Any, name: str) -> dict[str, Any]:
    return dict(_kind(value, dict, name))


def _list(value: Any, name: str) -> list[Any]:
    return _kind(value, list, name)


def _text(value: Any, name: str) -> str:
    return _kind(value, str, name)


def _flag(value: Any, name: str) -> bool:
    return _kind(value, bool, name)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"its manifest's {name} is no number: {value!r}"[:200])
    return float(value)


def _whole(value: Any, name: str, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"its manifest's {name} is no whole number from 1 to {most}: {value!r}"[:200])
    return value


def _kind(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"its manifest's {name} is of the wrong kind: {value!r}"[:200])
    return value
