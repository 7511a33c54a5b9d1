"""A graph on its way to a file. Weights are promises until they are written, one at a time.

An .onnx file is a protobuf message: fields one after another, each a tag, a length and bytes. So
weights can be streamed into it, or into a file beside it, and never stand in memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from slimsearch.errors import SettingsError

OPSET, IR = 14, 8
INLINE = 1 << 30  # bytes of weights beyond which they stand in a file beside the graph
BESIDE = "_data"  # that file's name is the graph's and this
STEP = 1 << 26  # bytes of a weight that are made ready to be written at once
_ALIGNED = 4096  # where weights begin in it, so that engines can map them
# Protobuf tags: field number * 8 + 2 (a length and bytes follow).
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW = 7 << 3 | 2, 5 << 3 | 2, 9 << 3 | 2

Shape = Sequence[int | str]  # a str names a length that may be any


@dataclass(frozen=True)
class Promise:
    """A weight that `make` gives when its turn comes, in any type that `dtype` holds exactly."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Sheet:
    """Operators, inputs, outputs and weights, in the order in which they were put down."""

    def __init__(self, name: str):
        self.onnx = _onnx()
        self._graph = self.onnx.GraphProto(name=name)
        self._promises: list[Promise] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def input(self, name: str, dtype: Any, shape: Shape) -> str:
        self._graph.input.append(self._value(name, dtype, shape))
        return name

    def output(self, name: str, made: str, dtype: Any, shape: Shape) -> None:
        """Gives `made` to the outside under a name."""
        self._graph.node.append(self.onnx.helper.make_node("Identity", [made], [name], name))
        self._graph.output.append(self._value(name, dtype, shape))

    def op(self, kind: str, *given: str, name: str = "", **attributes: Any) -> str:
        """Puts down an operator with one result, and returns the result's name."""
        return self.ops(kind, *given, results=1, name=name, **attributes)[0]

    def ops(
        self, kind: str, *given: str, results: int, name: str = "", **attributes: Any
    ) -> list[str]:
        """Puts down an operator with several results."""
        self._count += 1
        name = name or f"{kind}_{self._count}"
        made = [f"{name}:{number}" for number in range(results)]
        self._graph.node.append(
            self.onnx.helper.make_node(kind, list(given), made, name, **attributes)
        )
        return made

    def constant(self, value: Any, dtype: Any) -> str:
        """A small constant, the same one for every use."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._constants[key] = f"constant_{len(self._constants)}"
            self._graph.initializer.append(self.onnx.numpy_helper.from_array(array, name))
        return self._constants[key]

    def weight(
        self, name: str, dtype: Any, shape: Sequence[int], make: Callable[[], Tensor]
    ) -> str:
        """A weight; `make()` gives it when the sheet is written."""
        self._promises.append(Promise(name, np.dtype(dtype), tuple(shape), make))
        return name

    def take(self, graph: Any, promises: Sequence[Promise]) -> None:
        """Takes over a graph that another tool has drawn, its weights as promises."""
        self._graph.CopyFrom(graph)
        self._promises += promises

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(promise.size for promise in self._promises)

    def write(self, file: Path) -> None:
        """Streams the graph into a file; above INLINE bytes its weights go into one beside it."""
        if self.size > INLINE:
            self._write_beside(file)
        else:
            self._write_inline(file)

    def _write_beside(self, file: Path) -> None:
        write_together({file: self}, file.with_name(file.name + BESIDE))

    def point_at(self, beside: Path, places: Mapping[str, int]) -> bytes:
        """The graph's file, its weights standing at these places of the file beside it."""
        graph = self.onnx.GraphProto()
        graph.CopyFrom(self._graph)
        for promise in self._promises:
            header = self._header(promise)
            header.data_location = self.onnx.TensorProto.EXTERNAL
            for key, value in (
                ("location", beside.name),
                ("offset", places[promise.name]),
                ("length", promise.size),
            ):
                header.external_data.add(key=key, value=str(value))
            graph.initializer.append(header)
        return self._model(graph).SerializeToString()

    def pour(self, stream: BinaryIO, places: dict[str, int]) -> None:
        """Writes the weights that have no place yet, and notes where."""
        for promise in self._promises:
            if promise.name not in places:
                stream.write(b"\0" * (-stream.tell() % _ALIGNED))
                places[promise.name] = stream.tell()
                _pour(promise, stream)

    def _write_inline(self, file: Path) -> None:
        outer, graph = self._model().SerializeToString(), self._graph.SerializeToString()
        headers = [self._header(promise).SerializeToString() for promise in self._promises]
        raws = [_tag(_TENSOR_RAW, promise.size) for promise in self._promises]
        tensors = [
            len(header) + len(raw) + promise.size
            for header, raw, promise in zip(headers, raws, self._promises, strict=True)
        ]
        tags = [_tag(_GRAPH_INITIALIZER, size) for size in tensors]
        whole = len(graph) + sum(map(len, tags)) + sum(tensors)
        with file.open("wb") as stream:
            stream.write(outer + _tag(_MODEL_GRAPH, whole) + graph)
            for tag, header, raw, promise in zip(tags, headers, raws, self._promises, strict=True):
                stream.write(tag + header + raw)
                _pour(promise, stream)

    def _model(self, graph: Any = None) -> Any:
        model = self.onnx.ModelProto(ir_version=IR, producer_name="slimsearch")
        model.opset_import.add(domain="", version=OPSET)
        if graph is not None:
            model.graph.CopyFrom(graph)
        return model

    def _header(self, promise: Promise) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(promise.dtype)
        return self.onnx.TensorProto(name=promise.name, data_type=kind, dims=promise.shape)

    def _value(self, name: str, dtype: Any, shape: Shape) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, list(shape))


def write_together(sheets: Mapping[Path, Sheet], beside: Path) -> None:
    """Writes graphs of one folder over one file of weights; those of one name stand there once."""
    places: dict[str, int] = {}
    with beside.open("wb") as stream:
        for sheet in sheets.values():
            sheet.pour(stream, places)
    for file, sheet in sheets.items():
        file.write_bytes(sheet.point_at(beside, places))


def _pour(promise: Promise, stream: BinaryIO) -> None:
    """Writes a weight, a few rows at a time: a half, widened whole, would stand in memory twice."""
    made = promise.make().detach()
    assert tuple(made.shape) == promise.shape, promise.name
    dtype = torch.from_numpy(np.empty(0, promise.dtype)).dtype
    rows = torch.atleast_1d(made)
    for few in rows.split(max(1, STEP * len(rows) // max(promise.size, 1))):
        stream.write(few.to("cpu", dtype).contiguous().numpy().reshape(-1).view(np.uint8).data)


def _tag(tag: int, length: int) -> bytes:
    """A tag and a length as protobuf's variable-length numbers: 7 bits a byte, low ones first."""
    written = bytearray([tag])
    while length > 0x7F:
        written.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*written, length])


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise SettingsError(
            "Graphs need the package onnx, which is not installed: pip install 'slimsearch[onnx]'."
        ) from None
    return onnx
