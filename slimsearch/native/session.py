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
from slimsearch.kinds import PICTURE, PROMPT, TEXT
from slimsearch.native import form, library
from slimsearch.native.form import Held, Shape, Tensors
from slimsearch.native.library import Engine
from slimsearch.native.parts import NORMS, ROLES, SLACK, WORD
from slimsearch.route import Kinds, Step

LANES = 16  # places of the cache that lie side by side
DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}


class NativeSession(Session):
    def __init__(self, held: Held, threads: int = 0, variant: str = ""):
        self._held = held
        tensors = held.open(form.DECODER)
        self._parts = Parts(tensors, form.shape_in(tensors))
        self._engine = Engine(threads, variant)
        self._eyes: Any = None
        self._cache: Cache | None = None
        self._told: ndarray | None = None  # classes of the tokens that the next step reads
        self.room = self._parts.shape.positions

    def see(self, pixels: ndarray) -> ndarray:
        if not loading.architecture_of(self._held.checkpoint).sees:
            raise InputError("This model reads text only; leave out the picture.")
        if self._eyes is None:
            from slimsearch.native.eyes import Eyes

            self._eyes = Eyes(self._held, self._parts.route.merge)
        return self._eyes.see(pixels)

    def embed(self, ids: ndarray) -> ndarray:
        return self._parts.embed(ids)

    def tell(self, kinds: ndarray) -> None:
        self._told = kinds

    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        logits = np.zeros((len(embeds), self._parts.shape.vocabulary), np.float32)
        self._read(embeds, mask, positions, logits)
        return logits

    def step_all(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        logits = np.zeros((*embeds.shape[:2], self._parts.shape.vocabulary), np.float32)
        made = np.empty((embeds.shape[0] * embeds.shape[1], logits.shape[2]), np.float32)
        real = self._read(embeds, mask, positions, made, every=True)
        logits[real] = made[: np.count_nonzero(real)]
        return logits

    def _read(
        self,
        embeds: ndarray,
        mask: ndarray,
        positions: ndarray,
        logits: ndarray,
        every: bool = False,
    ) -> ndarray:
        """Reads tokens; which of them are real. `logits` takes the last tokens', or every one's."""
        real = mask[:, -embeds.shape[1] :] == 1
        kinds = self._kinds(embeds)
        if self._parts.route.merge is not None:  # what was merged into others comes as zeros
            real &= (kinds != PICTURE) | (embeds != 0).any(-1)
        counts = real.sum(1).astype(np.int64)
        if self._cache is None:
            self._cache = Cache(self._parts, len(embeds), self._padded_room)
        if not counts.any():
            return real
        cache, places = self._cache, np.ascontiguousarray(positions[real], np.int64)
        self._check_room(max(int(places.max()) + 1, int((cache.filled + counts).max())))
        hidden = np.array(embeds[real], np.float32)
        kinds = np.ascontiguousarray(kinds[real], np.uint8)
        self._engine.step(
            self._parts.decoder,
            library.Step(
                len(hidden), len(embeds), self._padded_room, every, library.address(counts),
                library.address(cache.filled), library.address(places), library.address(kinds),
                library.address(hidden), cache.keys.address, cache.values.address,
                cache.pictured_address, library.address(logits),
            ),
        )  # fmt: skip
        return real

    def _check_room(self, longest: int) -> None:
        if longest > self.room:
            raise InputError(
                f"{longest} tokens are more than the {self.room} that this model holds. Shorten "
                f"the prompt, or drop earlier turns."
            )

    def _kinds(self, embeds: ndarray) -> ndarray:
        """Of which class each token is: as was told, or a token alone behind others is text."""
        told, self._told = self._told, None
        if told is not None:
            return told
        said = embeds.shape[1] == 1 and self._cache is not None
        return np.full(embeds.shape[:2], TEXT if said else PROMPT, np.uint8)

    def multiply(self, given: ndarray, role: str, block: int | None = None) -> ndarray:
        """One matrix alone, of a block or the head: [tokens, columns] -> [tokens, rows]."""
        decoder = self._parts.decoder
        owner = decoder if block is None else decoder.block[block]
        return self._engine.multiply(getattr(owner, role), given)

    def forget(self) -> None:
        self._cache = self._told = None

    def close(self) -> None:
        self.forget()
        self._engine.close()
        self._eyes = None

    @property
    def _padded_room(self) -> int:
        return -(-self.room // LANES) * LANES


class Cache:
    """Keys and values of every block, for each row as many as tokens went through it."""

    def __init__(self, parts: Parts, rows: int, room: int):
        shape = parts.shape
        size = rows * shape.key_heads * room * shape.head_width
        kept = np.uint16 if shape.dtype == "int8" else np.float32  # bf16 as its bits
        self.filled = np.zeros((shape.blocks, rows), np.int64)  # places taken
        self.keys, self.values = (
            _Arrays([np.empty(size, kept) for _ in range(shape.blocks)]) for _ in range(2)
        )
        cut = any(step.window is not None for step in parts.route.steps)
        self._pictured = np.zeros((shape.blocks, rows, room), np.uint8) if cut else None

    @property
    def pictured_address(self) -> int | None:
        return None if self._pictured is None else library.address(self._pictured)


class _Arrays:
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
        self.route = form.route_in(tensors, shape)
        self._held: list[Any] = []  # arrays that the structures point at
        self._blocks = (library.Block * shape.blocks)()
        for index in range(shape.blocks):
            self._fill(self._blocks[index], f"blocks.{index}.", self.route.steps[index])
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

    def _fill(self, block: library.Block, prefix: str, step: Step) -> None:
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
        try:
            _follow(block, step)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"{self._tensors.file} says that a block runs as none can ({error}). {form.AGAIN}"
            ) from None

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


def _follow(block: library.Block, step: Step) -> None:
    """Has a block run as its step says."""
    block.idle_attention = _bits(step.skip_block | step.skip_attention)
    block.idle_ffn = _bits(step.skip_block | step.skip_ffn)
    block.window = -1 if step.window is None else step.window
    block.parallel_ffn = step.parallel_ffn
    block.parallel_next = library.JOINED.index(step.parallel_next)


def _bits(kinds: Kinds) -> int:
    return sum(1 << kind for kind in kinds)
