"""Keys and values that a decoder holds. Memory for them is taken from the system as it fills."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy import ndarray

from slimsearch.native import library
from slimsearch.native.mapped import Parts


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
