"""A decoder in the engine: its matrices where they lie on disk, a cache that tokens are added to.

Only real tokens are read and kept: a row's padding never reaches the engine, and each row has a
cache of its own length. Memory for the cache is taken from the system as it fills.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy import ndarray

from slimsearch import loading
from slimsearch.contracts import Session
from slimsearch.errors import InputError, ModelError
from slimsearch.native import form, library
from slimsearch.native.form import Held, Shape, Tensors
from slimsearch.native.library import Engine
from slimsearch.native.parts import NORMS, ROLES, SLACK, WORD

LANES = 16  # places of the cache that lie side by side
DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}


class NativeSession(Session):
    def __init__(self, held: Held, threads: int = 0, variant: str = ""):
        self._held = held
        tensors = held.open(form.DECODER)
        self._parts = Parts(tensors, form.shape_in(tensors))
        self._engine = Engine(threads, variant)
        self._eyes: Any = None
        self._filled: ndarray | None = None  # places taken in each row's cache
        self._keys, self._values = _Caches([]), _Caches([])
        self.room = self._parts.shape.positions

    def see(self, pixels: ndarray) -> ndarray:
        if not loading.architecture_of(self._held.checkpoint).sees:
            raise InputError("This model reads text only; leave out the picture.")
        if self._eyes is None:
            from slimsearch.native.eyes import Eyes

            self._eyes = Eyes(self._held)
        return self._eyes.see(pixels)

    def embed(self, ids: ndarray) -> ndarray:
        return self._parts.embed(ids)

    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        real = mask[:, -embeds.shape[1] :] == 1
        counts = real.sum(1).astype(np.int64)
        shape = self._parts.shape
        logits = np.zeros((len(embeds), shape.vocabulary), np.float32)
        if self._filled is None:
            self._make_cache(len(embeds))
        assert self._filled is not None
        longest = int((self._filled + counts).max(initial=0))
        if longest > self.room:
            raise InputError(
                f"{longest} tokens are more than the {self.room} that this model holds. Shorten "
                f"the prompt, or drop earlier turns."
            )
        if not counts.any():
            return logits
        hidden = np.array(embeds[real], np.float32)
        places = np.ascontiguousarray(positions[real], np.int64)
        self._engine.step(
            self._parts.decoder,
            library.Step(
                len(hidden), len(embeds), self._padded_room, library.address(counts),
                library.address(self._filled), library.address(places), library.address(hidden),
                self._keys.address, self._values.address, library.address(logits),
            ),
        )  # fmt: skip
        self._filled += counts
        return logits

    def multiply(self, given: ndarray, role: str, block: int | None = None) -> ndarray:
        """One matrix alone, of a block or the head: [tokens, columns] -> [tokens, rows]."""
        decoder = self._parts.decoder
        owner = decoder if block is None else decoder.block[block]
        return self._engine.multiply(getattr(owner, role), given)

    def forget(self) -> None:
        self._filled, self._keys, self._values = None, _Caches([]), _Caches([])

    def close(self) -> None:
        self.forget()
        self._engine.close()
        self._eyes = None

    @property
    def _padded_room(self) -> int:
        return -(-self.room // LANES) * LANES

    def _make_cache(self, rows: int) -> None:
        shape = self._parts.shape
        size = rows * shape.key_heads * self._padded_room * shape.head_width
        kept = np.uint16 if shape.dtype == "int8" else np.float32  # bf16 as its bits
        self._filled = np.zeros(rows, np.int64)
        self._keys, self._values = (
            _Caches([np.empty(size, kept) for _ in range(shape.blocks)]) for _ in range(2)
        )


class _Caches:
    """An array for each block, and where they begin as the library wants to know it."""

    def __init__(self, arrays: list[ndarray]):
        self._arrays = arrays
        self._begins = (ctypes.c_void_p * len(arrays))(*map(library.address, arrays))

    @property
    def address(self) -> int:
        return ctypes.addressof(self._begins)


class Parts:
    """A decoder's tensors as the library takes them."""

    def __init__(self, tensors: Tensors, shape: Shape):
        self.shape, self._tensors = shape, tensors
        self._held: list[Any] = []  # arrays that the structures point at
        self._blocks = (library.Block * shape.blocks)()
        for index in range(shape.blocks):
            self._fill(self._blocks[index], f"blocks.{index}.")
        own_head = "head.values" in tensors
        wide = "bfloat16" if shape.dtype == "int8" else shape.dtype
        table = self._matrix("embedding", shape.vocabulary, shape.width, wide)
        head = self._matrix("head", shape.vocabulary, shape.width) if own_head else table
        stride = -(-shape.width // WORD) * WORD
        count = shape.vocabulary * stride
        self._table = tensors.array("embedding.values", DTYPES[wide])[:count].reshape(-1, stride)
        turns = shape.positions * shape.head_width
        self.decoder = library.Decoder(
            shape.blocks, shape.width, shape.heads, shape.key_heads, shape.head_width, shape.inner,
            form.ACTIVATIONS.index(shape.activation), shape.epsilon, self._blocks,
            self._floats("norm", shape.width), head, self._floats("cos", turns),
            self._floats("sin", turns),
        )  # fmt: skip

    def embed(self, ids: ndarray) -> ndarray:
        """[rows, tokens] -> [rows, tokens, width], fp32."""
        if ids.size and not 0 <= ids.min() <= ids.max() < self.shape.vocabulary:
            raise InputError(f"Token {ids.max()} is none of the {self.shape.vocabulary} known.")
        found = self._table[ids, : self.shape.width]
        if found.dtype == np.uint16:
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float32)

    def _fill(self, block: library.Block, prefix: str) -> None:
        shape = self.shape
        query, key = shape.heads * shape.head_width, shape.key_heads * shape.head_width
        sizes = {
            "q": (query, shape.width), "k": (key, shape.width), "v": (key, shape.width),
            "o": (shape.width, query), "gate": (shape.inner, shape.width),
            "up": (shape.inner, shape.width), "down": (shape.width, shape.inner),
        }  # fmt: skip
        for norm in NORMS:
            setattr(block, norm, self._floats(prefix + norm, shape.width))
        for role in ROLES:
            setattr(block, role, self._matrix(prefix + role, *sizes[role]))

    def _matrix(self, name: str, rows: int, columns: int, dtype: str = "") -> library.Matrix:
        dtype = dtype or self.shape.dtype
        words, tensors = -(-columns // WORD), self._tensors
        values = tensors.array(f"{name}.values", DTYPES[dtype])
        matrix = library.Matrix(rows, columns, library.KINDS.index(dtype))
        matrix.values = self._hold(values)
        if f"{name}.mask" in tensors:
            matrix.mask = self._hold(tensors.array(f"{name}.mask", np.int64, rows * words))
            matrix.starts = self._hold(tensors.array(f"{name}.starts", np.int64, rows + 1))
        if dtype == "int8":
            matrix.scale = self._floats(f"{name}.scale", rows)
            matrix.sums = self._hold(tensors.array(f"{name}.sums", np.int32, rows))
        if f"{name}.bias" in tensors:
            matrix.bias = self._floats(f"{name}.bias", rows)
        count = len(values) - SLACK // values.itemsize
        bad = library.check(matrix, count)
        if bad >= 0:
            raise ModelError(
                f"{tensors.file}: bits and values of {name} do not fit together from row {bad} on. "
                f"{form.AGAIN}"
            )
        return matrix

    def _floats(self, name: str, count: int) -> int:
        return self._hold(self._tensors.array(name, np.float32, count))

    def _hold(self, array: ndarray) -> int:
        self._held.append(array)
        return library.address(array)
