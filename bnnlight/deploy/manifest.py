"""The manifest of a shipped model: its task, the pictures that it takes, what its output means, its origin."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bnnlight.deploy.program import Shape
from bnnlight.deploy.program.untrusted import is_line, parse_json, shown
from bnnlight.deploy.seal import EMPTY, PREFIX
from bnnlight.imaging.skeletons import Skeleton

FORMAT = 1
"""Number of the file format; a reader takes this one alone."""
MAX_JOINTS = 1024
MIN_STD = 1e-6
MAX_NUMBER = 1e30
"""Of metrics, means and deviations: float32 can hold it."""


@dataclass(frozen=True)
class PictureInput:
    """What is done to a picture before the network.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        size_px: width and height of the network's input.
        mean, std: of each channel, on the scale 0..1.
        resize_px: classification: length to which the shorter side is brought before the middle is cut out; None
            for pose, where the square round the picture is brought to ``size_px``.
        box_padding: pose: side of the square that is cut out by the longer side of a person's box, as in training; None
            where that is not known.
    """

    channels: int
    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_px: int | None = None
    box_padding: float | None = None


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
        origin: texts: ``commit``, ``command``, ``config_sha256``, ``checkpoint_sha256``, ``data``, ``made``,
            ``bnnlight``.
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
            ValueError: it is not a manifest, of another format's version, or something in it is of the wrong kind.
        """
        record = _record(text)
        try:
            seal = _text(record.pop("seal"), "seal")
            fields = dict(
                task=_text(record.pop("task"), "task"),
                network=_text(record.pop("network"), "network"),
                input=_input(_object(record.pop("input"), "input")),
                classes=tuple(_text(name, "classes") for name in _list(record.pop("classes"), "classes")),
                skeleton=_skeleton(record.pop("skeleton")),
                sigmoid=_kind(record.pop("sigmoid"), bool, "sigmoid"),
                flip_test=_kind(record.pop("flip_test"), bool, "flip_test"),
                metrics={
                    _text(k, "metrics"): _number(v, k) for k, v in _object(record.pop("metrics"), "metrics").items()
                },
                origin={_text(k, "origin"): _lines(v, k) for k, v in _object(record.pop("origin"), "origin").items()},
            )
        except KeyError as error:
            raise ValueError(f"its manifest lacks {error}") from error
        _check_empty(record, "manifest")
        if fields["task"] not in ("classification", "pose"):
            raise ValueError(f"its manifest names no task that bnnlight knows: {shown(fields['task'])}")
        if (fields["task"] == "pose") != (fields["skeleton"] is not None):
            raise ValueError(
                f"its manifest is for the task {fields['task']}: a pose model has a skeleton, and no other has one"
            )
        return cls(**fields), seal

    def check_fits(self, input_shape: Shape, output_shape: Shape) -> None:
        """Makes sure that it speaks of a network with such an input and output.

        Args:
            input_shape: ``(C, H, W)`` of one picture.
            output_shape: of the network's value for one picture.

        Raises:
            ValueError: it has pictures of another size, or other numbers of classes or joints.
        """
        picture = (self.input.channels, self.input.size_px, self.input.size_px)
        if tuple(input_shape) != picture:
            raise ValueError(
                f"its manifest is for pictures of shape {picture}, but its network takes {tuple(input_shape)}"
            )
        if self.task == "pose":
            fits = len(output_shape) in (3, 4) and output_shape[-3] == len(self.skeleton.joints)
            named = f"{len(self.skeleton.joints)} joints"
        else:
            fits = len(output_shape) == 1 and len(self.classes) in (0, *output_shape)
            named = f"{len(self.classes)} classes"
        if not fits:
            raise ValueError(
                f"its manifest names {named}, but its network gives a value of shape {tuple(output_shape)}"
            )


def read_seal(text: str) -> str:
    """The seal in a manifest's JSON, before anything else in it is looked at.

    Raises:
        ValueError: it is not a manifest, has no seal, or is of another format's version.
    """
    return _text(_record(text).get("seal"), "seal")


def _record(text: str) -> dict[str, Any]:
    """The entries but for the format, which must be this one: those of another may be anything."""
    record = _object(parse_json(text, "its manifest"), "content")
    version = record.pop("format", None)
    if type(version) is not int or version != FORMAT:
        raise ValueError(f"its format is {shown(version)}, but this version of bnnlight reads {FORMAT}")
    return record


def _input(record: dict[str, Any]) -> PictureInput:
    channels, size = (_whole(record.pop(name), name, 2**14) for name in ("channels", "size_px"))
    resize = record.pop("resize_px")
    mean, std = (tuple(_number(v, name) for v in _list(record.pop(name), name)) for name in ("mean", "std"))
    # files that were written before there was one have none
    padding = record.pop("box_padding", None)
    padding = None if padding is None else _number(padding, "box_padding")
    _check_empty(record, "input")
    # a std that float32 takes for 0 would be divided by
    if channels not in (1, 3) or {len(mean), len(std)} != {channels} or min(std) < MIN_STD:
        raise ValueError(f"its manifest's input needs 1 or 3 channels, and a mean and a std from {MIN_STD} on for each")
    if padding is not None and padding < MIN_STD:
        raise ValueError(f"its manifest's box_padding must be above 0: {shown(padding)}")
    resize = None if resize is None else _whole(resize, "resize_px", 2**14)
    return PictureInput(channels, size, mean, std, resize, padding)


def _skeleton(record: Any) -> Skeleton | None:
    if record is None:
        return None
    record = _object(record, "skeleton")
    joints = tuple(_text(name, "joints") for name in _list(record.pop("joints"), "joints"))
    limbs = [_list(limb, "limbs") for limb in _list(record.pop("limbs"), "limbs")]
    torso, excluded = (_list(record.pop(name), name) for name in ("torso", "excluded"))
    # files that were written before there were any have none
    sigmas = tuple(_number(value, "sigmas") for value in _list(record.pop("sigmas", []), "sigmas"))
    flip_pairs = record.pop("flip_pairs", None)
    pairs = [_list(pair, "flip_pairs") for pair in _list(flip_pairs or [], "flip_pairs")]
    _check_empty(record, "skeleton")
    if len(joints) > MAX_JOINTS or len({*joints}) != len(joints):
        raise ValueError(f"its manifest's skeleton has more than {MAX_JOINTS} joints, or one twice")
    sided = [i for pair in pairs for i in pair]
    indices = [*(i for limb in limbs for i in limb), *torso, *excluded, *sided]
    known = all(type(i) is int and 0 <= i < len(joints) for i in indices)
    if not known or {2} != {2, *(len(pair) for pair in (*limbs, *pairs, *([torso] if torso else ())))}:
        raise ValueError("its manifest's skeleton names joints that are not there")
    if len({*sided}) != len(sided) or len(sigmas) not in (0, len(joints)) or any(sigma <= 0 for sigma in sigmas):
        raise ValueError("its manifest's skeleton has a joint in two flip_pairs, or sigmas that do not fit its joints")
    skeleton = Skeleton(
        joints,
        tuple(map(tuple, limbs)),
        tuple(torso),
        tuple(excluded),
        sigmas,
        None if flip_pairs is None else tuple(map(tuple, pairs)),
    )
    try:
        skeleton.mirrored  # noqa: B018  (a left joint without a right one has no mirror image)
    except ValueError as error:
        raise ValueError(f"its manifest's skeleton is not symmetric: {error}") from error
    return skeleton


def _check_empty(record: dict[str, Any], what: str) -> None:
    if record:
        raise ValueError(f"its {what} has an unknown entry {shown(next(iter(record)))}")


def _object(value: Any, name: str) -> dict[str, Any]:
    return dict(_kind(value, dict, name))


def _list(value: Any, name: str) -> list[Any]:
    return _kind(value, list, name)


def _text(value: Any, name: str) -> str:
    if not is_line(value):
        raise ValueError(f"its manifest's {name} is not a single line of text: {shown(value)}")
    return value


def _lines(value: Any, name: str) -> str:
    """A text of any number of lines: of a command, for one."""
    if not isinstance(value, str) or not is_line(re.sub(r"[\n\t]", "", value)):
        raise ValueError(f"its manifest's {shown(name)} is not text: {shown(value)}")
    return value


def _number(value: Any, name: str) -> float:
    # the comparison fails for NaN, and for whole numbers too large for a float
    if type(value) not in (int, float) or not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise ValueError(f"its manifest's {shown(name)} is not a number: {shown(value)}")
    return float(value)


def _whole(value: Any, name: str, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"its manifest's {name} is not a whole number from 1 to {most}: {shown(value)}")
    return value


def _kind(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"its manifest's {name} is of the wrong kind: {shown(value)}")
    return value
