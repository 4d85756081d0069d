"""Reads safetensors files within known bounds, and writes them whole or not at all."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from bnnlight.deploy.program.untrusted import parse_json, shown

MAX_HEADER_BYTES = 2**22
"""Largest header: that of a ResNet-18 has 50 kB. JSON takes up to 40 times its bytes in memory."""

MAX_FILE_BYTES = 2**30
"""Largest file, some 400 times that of a ResNet-18."""

ITEM_BYTES = {"U8": 1, "F16": 2, "F32": 4}
"""Types of numbers that a program's tensors have."""

Metadata = dict[str, str]


def to_bytes(tensors: Mapping[str, np.ndarray], metadata: Metadata) -> bytes:
    """A safetensors file's content, the same for the same tensors and texts.

    Raises:
        ValueError: it would be larger than what a reader takes.
    """
    content = save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata)
    # the library writes the texts in an order that changes from call to call
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    rewritten = b"".join((len(header).to_bytes(8, "little"), header, memoryview(content)[8 + length :]))
    for what, size, most in (("header", len(header), MAX_HEADER_BYTES), ("file", len(rewritten), MAX_FILE_BYTES)):
        if size > most:
            raise ValueError(f"its {what} would have {size} bytes, but at most {most} are read")
    return rewritten


def read_bytes(file: Path) -> tuple[bytes, Metadata]:
    """A safetensors file's content and texts. Not more of it is read than its header, once checked, speaks of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a safetensors file of a program, is shorter or longer than its header says, or too large.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file}: there is no such file; name one that bnnlight export wrote")
    if not file.is_file():  # opening a pipe would wait for somebody to write
        raise ValueError("it is not a regular file")
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ValueError("it is not a safetensors file, or is cut off")
        header = stream.read(length)
        metadata, num_bytes = _parse(header)
        if 8 + length + num_bytes != size:
            raise ValueError(f"it has {size} bytes, but its header says {8 + length + num_bytes}")
        if size > MAX_FILE_BYTES:
            raise ValueError(f"it has {size} bytes, but at most {MAX_FILE_BYTES} are read")
        return b"".join((start, header, stream.read(num_bytes))), metadata


def to_tensors(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of a content whose header was checked by :func:`read_bytes`.

    Raises:
        ValueError: they overlap, leave holes or are of other sizes than their shapes.
    """
    try:
        return load(content)
    except SafetensorError as error:
        raise ValueError(f"it is not a safetensors file: {shown(str(error))}") from error


def _parse(header: bytes) -> tuple[Metadata, int]:
    """Texts of a header, and number of bytes behind it."""
    record = parse_json(header.decode("utf-8"), "its header")
    if not isinstance(record, dict):
        raise ValueError("its header is not an object")
    metadata = record.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its header's metadata are not text")
    return metadata, sum(_num_bytes(name, entry) for name, entry in record.items())


def _num_bytes(name: str, entry: Any) -> int:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its header's entry {shown(name)} does not describe a tensor")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ValueError(f"its tensor {shown(name)} is of type {shown(dtype)}: expected {', '.join(ITEM_BYTES)}")
    whole = isinstance(shape, list) and isinstance(offsets, list) and all(type(v) is int for v in shape + offsets)
    if not whole or len(shape) > 4 or len(offsets) != 2 or min(shape + offsets) < 0:
        raise ValueError(f"its tensor {shown(name)} has no valid shape or place")
    if offsets[1] - offsets[0] != ITEM_BYTES[dtype] * math.prod(shape):
        raise ValueError(f"its tensor {shown(name)} takes other than the bytes of its shape {shape}")
    return offsets[1] - offsets[0]


def write_bytes(content: bytes, file: Path) -> None:
    """Writes a file in one step: whatever happens, there is the old one or the new one, and nothing besides."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
