"""The files of a native export: safetensors, written part by part, mapped and checked on opening.

native/decoder.safetensors   the decoder's parts (parts.py); its metadata say how it is built
native/model.safetensors     everything else of the checkpoint, under the names that it has there

SHA-256 of each 64 MiB of both stand in slimsearch.json, and nothing is read before they agree.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from slimsearch import files
from slimsearch.errors import ModelError
from slimsearch.graphs.anatomy import Decoder
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.native.parts import SIZES, Part
from slimsearch.routes.route import Route, from_json, plain

FORM, DECODER, OTHERS = "native", "decoder.safetensors", "model.safetensors"
FORMAT = 1
STRETCH = 64 << 20  # bytes hashed at a time
LONGEST = 64 << 20  # bytes of a header
META = "slimsearch"
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu")  # in the order of native.h
WIDTHS = {"float32": 4, "bfloat16": 2, "int8": 1}  # bytes of a weight, by dtype
SAME = {"gelu_new": "gelu_pytorch_tanh"}
AGAIN = "Export it again with --to native."


@dataclass(frozen=True)
class Shape:
    """How a decoder is built, and what the checkpoint called its tensors."""

    dtype: str  # float32, bfloat16 or int8
    blocks: int
    width: int
    heads: int
    key_heads: int
    head_width: int
    inner: int
    vocabulary: int
    positions: int
    epsilon: float
    activation: str
    names: Mapping[str, tuple[str, str]]  # part -> key on disk, its dtype there
    route: Mapping[str, Any] = field(default_factory=dict)  # as Route.as_json has it
    format: int = FORMAT


@dataclass(frozen=True)
class Held:
    """An export that holds this form; `seals` are what was recorded of its files."""

    checkpoint: Checkpoint
    seals: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.checkpoint.folder / FORM

    def open(self, name: str) -> Tensors:
        """One of its files, mapped and checked."""
        return Tensors(self.folder / name, self.seals.get(name, {}))


def held_as(dtype: str) -> str:
    """The dtype in which a checkpoint of another is held, where no one says otherwise."""
    return dtype if dtype in WIDTHS else "bfloat16"


def described(
    parts: Decoder, dtype: str, names: Mapping[str, tuple[str, str]], route: Mapping[str, Any]
) -> Shape:
    """How a decoder is built; `names` and `route` as in Shape."""
    check(parts)
    activation = SAME.get(parts.activation, parts.activation)
    if activation not in ACTIVATIONS:
        raise ModelError(f"The native engine knows no '{parts.activation}'; --to hf works.")
    return Shape(
        dtype=dtype, blocks=len(parts.blocks), width=parts.width, heads=parts.heads,
        key_heads=parts.key_heads, head_width=parts.head_width,
        inner=parts.blocks[0].down.weight.shape[1], vocabulary=len(parts.embedding),
        positions=parts.positions, epsilon=parts.epsilon, activation=activation, names=names,
        route=route,
    )  # fmt: skip


def check(parts: Decoder) -> None:
    """Refuses a decoder that is more than a LLaMA's, which is what the engine runs."""
    if parts.beyond:
        raise ModelError(
            f"The native engine runs decoders like LLaMA's; this one has {', '.join(parts.beyond)}"
            f". --to onnx and --to hf write it."
        )


def write(file: Path, parts: Iterable[Part], meta: str = "") -> dict[str, Any]:
    """Streams tensors into a safetensors file whose data begin a line of 64 bytes; its seal."""
    parts = list(parts)
    header: dict[str, Any] = {"__metadata__": {META: meta}} if meta else {}
    end = 0
    for part in parts:
        begin, end = end, end + part.size
        header[part.name] = {"dtype": part.code, "shape": part.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with files.writing(file), file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for part in parts:
            content = part.make()
            assert content.nbytes == part.size, part.name
            stream.write(content.data)
    return seal(file)


def seal(file: Path) -> dict[str, Any]:
    """What `check` later holds the file against."""
    content = _mapped(file)
    return {"bytes": len(content), "sha256": _hashes(content)}


class Tensors:
    """A safetensors file in memory as it lies on disk, checked against its seal."""

    def __init__(self, file: Path, sealed: Mapping[str, Any]):
        self.file = file
        self._content = content = _mapped(file)
        _check(file, content, sealed)
        try:
            length = int.from_bytes(content[:8], "little")
            if not 0 < length <= min(LONGEST, len(content) - 8):
                raise ValueError("its header has no length that can be")
            self._header: dict[str, Any] = json.loads(bytes(content[8 : 8 + length]))
            self.meta = str(self._header.pop("__metadata__", {}).get(META, ""))
            self._begin = 8 + length
            for name in self._header:
                self._place(name)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file} is damaged ({error}). {AGAIN}") from None

    def names(self) -> list[str]:
        return list(self._header)

    def code(self, name: str) -> str:
        """safetensors' name of a tensor's dtype."""
        return self._entry(name)["dtype"]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._entry(name)["shape"])

    def array(self, name: str, dtype: Any, count: int | None = None) -> ndarray:
        """A tensor's numbers in one row, where they lie; `count` is how many there must be."""
        begin, end = self._place(name)
        found = np.frombuffer(self._content, np.uint8, end - begin, begin)
        size = np.dtype(dtype).itemsize
        if len(found) % size or (count is not None and len(found) != count * size):
            raise ModelError(f"{self.file}: {name} has not the size that it should. {AGAIN}")
        return found.view(dtype) if begin % size == 0 else found.copy().view(dtype)

    def __contains__(self, name: str) -> bool:
        return name in self._header

    def _entry(self, name: str) -> Mapping[str, Any]:
        if name not in self._header:
            raise ModelError(f"{self.file} lacks the tensor {name}. {AGAIN}")
        return self._header[name]

    def _place(self, name: str) -> tuple[int, int]:
        """Where a tensor lies in the file: inside it, and as long as its shape says."""
        entry = self._entry(name)
        begin, end = (self._begin + int(offset) for offset in entry["data_offsets"])
        size = SIZES[entry["dtype"]] * int(np.prod(entry["shape"], dtype=np.int64))
        if not self._begin <= begin <= end <= len(self._content) or end - begin != size:
            raise ValueError(f"{name} does not lie within it")
        return begin, end


def shape_in(tensors: Tensors) -> Shape:
    """What a decoder's file says of how it is built."""
    try:
        facts = json.loads(tensors.meta)
        if facts["format"] != FORMAT:
            raise ModelError(
                f"{tensors.file} is of format {facts['format']}; this slimsearch reads {FORMAT}. "
                f"{AGAIN}"
            )
        shape = Shape(**facts)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{tensors.file} does not say how it is built ({error}).") from None
    counts = [value for value in asdict(shape).values() if isinstance(value, int)]
    if min(counts) < 1 or shape.heads % shape.key_heads or shape.head_width % 2:
        raise ModelError(f"{tensors.file} describes a decoder that cannot be. {AGAIN}")
    return shape


def route_in(tensors: Tensors, shape: Shape) -> Route:
    """How its blocks run."""
    if not shape.route:
        return plain(shape.blocks)
    return from_json(shape.route, shape.blocks, str(tensors.file))


def _mapped(file: Path) -> memoryview:
    """A file in memory as it lies on disk."""
    try:
        with file.open("rb") as stream:
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise ModelError(f"{file} cannot be read ({error}). {AGAIN}") from None


def _check(file: Path, content: memoryview, sealed: Mapping[str, Any]) -> None:
    """Refuses a file that is not what was written."""
    wanted, hashes = sealed.get("bytes"), sealed.get("sha256")
    if not isinstance(wanted, int) or not isinstance(hashes, list):
        raise ModelError(f"slimsearch.json holds no hashes of {file}, so it is not read. {AGAIN}")
    if len(content) != wanted:
        raise ModelError(f"{file} has {len(content)} bytes where {wanted} were written. {AGAIN}")
    for place, (found, known) in enumerate(zip(_hashes(content), hashes, strict=False)):
        if found != known:
            raise ModelError(
                f"{file} is damaged between bytes {place * STRETCH} and "
                f"{min((place + 1) * STRETCH, wanted)}: its SHA-256 is another. {AGAIN}"
            )
    if len(hashes) != -(-wanted // STRETCH):
        raise ModelError(f"slimsearch.json holds too few hashes of {file}. {AGAIN}")


def _hashes(content: memoryview) -> list[str]:
    """SHA-256 of each stretch, on every core at once."""

    def one(begin: int) -> str:
        return sha256(content[begin : begin + STRETCH]).hexdigest()

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(one, range(0, len(content), STRETCH)))
