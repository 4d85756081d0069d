"""Reads metadata from the bytes of an ONNX file, and adds outputs to them, without the package onnx.

An ONNX file is a protobuf message: a row of fields, each a number, a kind and a content, which may be a message again.
The numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

GRAPH, METADATA = 7, 14
"""Of a model."""
NODE, OUTPUT = 1, 12
"""Of a graph."""
NODE_OUTPUT, OPERATOR = 2, 4
"""Of a node."""
NAME = 1
"""Of a graph's output."""


def find_metadata(content: bytes, key: str) -> str:
    """The text that an ONNX file has under a key.

    Raises:
        ValueError: it is not an ONNX file, is cut off, or has no such text.
    """
    texts = []
    for entry in _all(content, METADATA):
        fields = dict(_fields(entry))
        if fields.get(1) == key.encode():
            texts.append(fields.get(2, b""))
    if len(texts) != 1:
        raise ValueError("it is not a model that bnnlight wrote; name one, or export it again")
    return _text(texts[0])


def find_outputs(content: bytes, operator: str) -> list[str]:
    """Names of the values that nodes of an operator give."""
    nodes = [list(_fields(node)) for graph in _all(content, GRAPH) for node in _all(graph, NODE)]
    matching = [fields for fields in nodes if (OPERATOR, operator.encode()) in fields]
    return [_text(name) for fields in matching for number, name in fields if number == NODE_OUTPUT]


def with_outputs(content: bytes, names: Sequence[str]) -> bytes:
    """The model with further values among its graph's outputs."""
    outputs = [output for graph in _all(content, GRAPH) for output in _all(graph, OUTPUT)]
    existing = {_text(name) for output in outputs for name in _all(output, NAME)}
    # protobuf joins a message's parts, wherever they lie in the file: these are added to the graph that is there
    added = b"".join(_field(OUTPUT, _field(NAME, name.encode())) for name in names if name not in existing)
    return content + _field(GRAPH, added)


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _all(message: bytes, number: int) -> list[bytes]:
    return [content for at, content in _fields(message) if at == number]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field that has bytes for content; the others are passed over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = _varint(message, at)
            yield number, message[at : at + size]
            at += size
        if number == 0 or kind not in (0, 1, 2, 5) or at > len(message):
            raise ValueError("it is not an ONNX file, or only a part of one; name another, or copy it again")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The whole number that begins at a place, 7 bits a byte, the lowest first; and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at] if at < len(message) else 0
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            break
    return value, at


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(value: int) -> bytes:
    """The inverse of :func:`_varint`."""
    low = bytearray()
    while value >= 0x80:
        low.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*low, value])
