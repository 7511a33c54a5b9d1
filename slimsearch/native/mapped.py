"""A decoder's tensors where they lie on disk, as the C library takes them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy import ndarray

from slimsearch.errors import InputError, ModelError
from slimsearch.native import form, library
from slimsearch.native.form import Shape, Tensors
from slimsearch.native.parts import NORMS, ROLES, SLACK, WORD
from slimsearch.routes.route import Kinds, Step

DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}


class Parts:
    """A decoder's tensors as the library takes them."""

    def __init__(self, tensors: Tensors, shape: Shape):
        self.shape, self._tensors = shape, tensors
        self.route = form.route_in(tensors, shape)
        self._unchecked: list[tuple[str, library.Matrix, int]] = []
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

        self._check()

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
        self._unchecked.append((name, matrix, len(values) - SLACK // values.itemsize))
        return matrix

    def _check(self) -> None:
        """Refuses a matrix that would have the library read outside of it."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            found = pool.map(lambda one: library.check(one[1], one[2]), self._unchecked)
        for (name, *_), bad in zip(self._unchecked, found, strict=True):
            if bad >= 0:
                raise ModelError(
                    f"{self._tensors.file}: bits and values of {name} do not fit together from row "
                    f"{bad} on. {form.AGAIN}"
                )

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
