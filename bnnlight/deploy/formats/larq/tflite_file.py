"""TensorFlow Lite files: tensors, constants and operators as a flatbuffer, in the schema that `tflite` keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
import tflite
from flatbuffers import flexbuffers

IDENTIFIER = b"TFL3"
"""Of the file's kind, in its first bytes."""
SCHEMA = 3
ALIGNED = 16
"""Bytes: constants begin at multiples of it, since engines read them where they lie."""
SAME, VALID = tflite.Padding.SAME, tflite.Padding.VALID

TYPES = {
    np.dtype(np.float32): tflite.TensorType.FLOAT32,
    np.dtype(np.float16): tflite.TensorType.FLOAT16,
    np.dtype(np.int32): tflite.TensorType.INT32,
}
OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GELU": "GeluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SPLIT": "SplitOptions",
}
"""Operators with options, and the table that holds them."""
VERSIONS = {"RESIZE_NEAREST_NEIGHBOR": 3}
"""Of operators that are written in a later form than their first."""


class Value(NamedTuple):
    """A tensor of the file.

    Attributes:
        index: its number.
        shape: with the batch, channels last.
    """

    index: int
    shape: tuple[int, ...]


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: int
    buffer: int


class _Operator(NamedTuple):
    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


class TFLiteFile:
    """Collects tensors and operators."""

    def __init__(self) -> None:
        self._tensors: list[_Tensor] = []
        self._operators: list[_Operator] = []
        # the first is empty: that of all tensors that are no constants
        self._buffers = [b""]
        self._shared: dict[tuple, Value] = {}

    def tensor(self, name: str, shape: Sequence[int], dtype: Any = np.float32, buffer: int = 0) -> Value:
        """A tensor that an operator fills, or the caller."""
        kind = TYPES[np.dtype(dtype)]
        self._tensors.append(_Tensor(name, tuple(map(int, shape)), kind, buffer))
        return Value(len(self._tensors) - 1, self._tensors[-1].shape)

    def dtype(self, value: Value) -> np.dtype:
        """Of a tensor's numbers."""
        kind = self._tensors[value.index].kind
        return next(dtype for dtype, code in TYPES.items() if code == kind)

    def constant(self, array: np.ndarray) -> Value:
        """A constant; equal ones are stored once."""
        array = np.asarray(array)
        # numpy makes a vector of a single number here
        content = np.ascontiguousarray(array).tobytes()
        key = array.dtype.str, array.shape, content
        if key not in self._shared:
            self._buffers.append(content)
            name = f":constant{len(self._shared)}"
            self._shared[key] = self.tensor(name, array.shape, array.dtype, len(self._buffers) - 1)
        return self._shared[key]

    def operator(
        self, code: str, inputs: Sequence[Value | None], outputs: Sequence[Value], **options: Any
    ) -> tuple[Value, ...]:
        """Appends an operator and gives its outputs.

        Args:
            code: TensorFlow Lite's name for it, or that of a custom one, which begins with ``Lce``.
            inputs: None stands for one that is left out.
            outputs: made by :meth:`tensor`.
            options: named as in the schema; those of a custom operator are written as a flexbuffer.
        """
        numbers = tuple(-1 if value is None else value.index for value in inputs)
        self._operators.append(_Operator(code, numbers, tuple(value.index for value in outputs), options))
        return tuple(outputs)

    def to_bytes(self, inputs: Sequence[Value], outputs: Sequence[Value], metadata: Mapping[str, bytes]) -> bytes:
        """The file.

        Args:
            inputs: tensors that the caller fills.
            outputs: tensors that the caller reads.
            metadata: entries beside the network, by name.
        """
        b = flatbuffers.Builder(1024 + sum(map(len, self._buffers)))
        buffers = [self._buffer(b, content) for content in [*self._buffers, *metadata.values()]]
        codes = list(dict.fromkeys(operator.code for operator in self._operators))
        first = len(self._buffers)
        notes = [_table(b, "Metadata", Name=b.CreateString(name), Buffer=first + i) for i, name in enumerate(metadata)]
        tensors = [self._tensor(b, tensor) for tensor in self._tensors]
        operators = [self._operator(b, operator, codes) for operator in self._operators]
        graph = _table(
            b,
            "SubGraph",
            Name=b.CreateString("main"),
            Tensors=_vector(b, tensors),
            Inputs=_integers(b, [value.index for value in inputs]),
            Outputs=_integers(b, [value.index for value in outputs]),
            Operators=_vector(b, operators),
        )
        model = _table(
            b,
            "Model",
            Version=SCHEMA,
            Description=b.CreateString("bnnlight"),
            OperatorCodes=_vector(b, [_operator_code(b, code) for code in codes]),
            Subgraphs=_vector(b, [graph]),
            Buffers=_vector(b, buffers),
            Metadata=_vector(b, notes),
        )
        b.Finish(model, IDENTIFIER)
        return bytes(b.Output())

    def _buffer(self, b: flatbuffers.Builder, content: bytes) -> int:
        if not content:
            return _table(b, "Buffer")
        # the vector's length comes before it: what counts is where its end lies, from which the builder writes on
        b.Prep(ALIGNED, len(content))
        return _table(b, "Buffer", Data=b.CreateByteVector(content))

    def _tensor(self, b: flatbuffers.Builder, tensor: _Tensor) -> int:
        name, shape = b.CreateString(tensor.name), _integers(b, tensor.shape)
        return _table(b, "Tensor", Name=name, Shape=shape, Type=tensor.kind, Buffer=tensor.buffer)

    def _operator(self, b: flatbuffers.Builder, operator: _Operator, codes: list[str]) -> int:
        fields = {"Inputs": _integers(b, operator.inputs), "Outputs": _integers(b, operator.outputs)}
        if operator.code in OPTIONS:
            table = OPTIONS[operator.code]
            fields["BuiltinOptions"] = _table(b, table, **operator.options)
            fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, table)
        elif operator.options:
            fields["CustomOptions"] = b.CreateByteVector(bytes(flexbuffers.Dumps(dict(operator.options))))
        return _table(b, "Operator", OpcodeIndex=codes.index(operator.code), **fields)


def _operator_code(b: flatbuffers.Builder, code: str) -> int:
    if code.startswith("Lce"):
        custom = tflite.BuiltinOperator.CUSTOM
        name = b.CreateString(code)
        return _table(b, "OperatorCode", DeprecatedBuiltinCode=custom, BuiltinCode=custom, CustomCode=name, Version=1)
    number = getattr(tflite.BuiltinOperator, code)
    # readers of the first schema know the numbers below 127, of one byte, from the other field
    return _table(
        b, "OperatorCode", DeprecatedBuiltinCode=min(number, 127), BuiltinCode=number, Version=VERSIONS.get(code, 1)
    )


def _table(b: flatbuffers.Builder, table: str, **fields: Any) -> int:
    """A table of the schema with these fields; the functions are those that flatbuffers' compiler makes of it."""
    getattr(tflite, f"{table}Start")(b)
    for name, value in fields.items():
        getattr(tflite, f"{table}Add{name}")(b, value)
    return getattr(tflite, f"{table}End")(b)


def _vector(b: flatbuffers.Builder, tables: Sequence[int]) -> int:
    b.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        b.PrependUOffsetTRelative(table)
    return b.EndVector()


def _integers(b: flatbuffers.Builder, values: Sequence[int]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependInt32(value)
    return b.EndVector()
