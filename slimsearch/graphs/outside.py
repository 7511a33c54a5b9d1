"""Looks at a graph file before an engine opens it: nothing outside its folder may be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from slimsearch.errors import ModelError, SettingsError

MOST = 1 << 31  # bytes; the format's own limit of a file


def check(file: Path) -> None:
    """Refuses a damaged graph, and one whose weights lie outside its folder or are cut short."""
    try:
        from onnx import TensorProto, load  # pyright: ignore[reportPrivateImportUsage]
    except ImportError:
        raise SettingsError(
            f"{file} needs the package onnx, which is not installed: pip install "
            f"'slimsearch[onnx]'."
        ) from None
    if file.stat().st_size >= MOST:
        raise ModelError(
            f"{file} is larger than 2 GB, which no engine reads in one piece. Export the model "
            f"again: weights beyond 1 GB then stand in a file beside the graph."
        )
    try:
        model = load(str(file), load_external_data=False)
    except Exception as error:  # protobuf's own kinds
        raise ModelError(f"{file} is no readable ONNX graph ({error}); export it again.") from None
    if not model.graph.node:
        raise ModelError(f"{file} holds no graph; export it again.")
    inside = (_held(function.node) for function in model.functions)
    for tensor in chain(_tensors(model.graph), *inside):
        if tensor.data_location == TensorProto.EXTERNAL:
            _check_tensor(file, tensor)


def _check_tensor(file: Path, tensor: Any) -> None:
    facts = {entry.key: entry.value for entry in tensor.external_data}
    place = facts.get("location", "")
    beside = file.parent / place
    plain = PurePosixPath(place.replace("\\", "/"))
    if not place or plain.is_absolute() or ".." in plain.parts or ":" in place:
        raise ModelError(
            f"{file} has the weight {tensor.name} in {place!r}, outside its folder. Refused: "
            f"weights stand beside their graph."
        )
    if not beside.is_file():
        raise ModelError(f"{beside} is missing though {file.name} needs it; export it again.")
    if not beside.resolve().is_relative_to(file.parent.resolve()):
        raise ModelError(f"{beside} is a link out of its folder. Refused; copy the file in.")
    try:
        start, length = int(facts.get("offset", 0)), int(facts.get("length", 0))
    except ValueError:
        start = length = -1
    if min(start, length) < 0 or start + length > beside.stat().st_size:
        raise ModelError(f"{beside} is cut short: {tensor.name} lacks bytes. Export it again.")


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph and of the graphs within it."""
    yield from graph.initializer
    yield from _dense(graph.sparse_initializer)
    yield from _held(graph.node)


def _held(nodes: Iterable[Any]) -> Iterator[Any]:
    """What operators have with them: constants, branches, bodies of loops."""
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            yield from _dense((attribute.sparse_tensor, *attribute.sparse_tensors))
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _dense(sparse: Iterable[Any]) -> Iterator[Any]:
    """The two tensors that each sparse one is made of."""
    for one in sparse:
        yield from (one.values, one.indices)
