"""The C library: built or found, its structures mirrored, its functions as methods of an engine."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_double, c_int64, c_void_p
from functools import cache

import numpy as np
from numpy import ndarray

from slimsearch import compiled
from slimsearch.errors import ResourceError, SettingsError
from slimsearch.native import sources

VARIANTS = ("portable", "avx2", "avx512", "avx512_bf16", "avx512_amx")  # as in native.h
KINDS = ("float32", "bfloat16", "int8")
JOINED = ("", "mean", "sum")  # how blocks side by side are, as route.Step has it


class Matrix(ctypes.Structure):
    """Mirrors Matrix in native.h; whoever fills it keeps the arrays that it points at."""

    _fields_ = (
        *((name, c_int64) for name in ("rows", "columns", "kind")),
        *((name, c_void_p) for name in ("mask", "starts", "values", "scale", "sums", "bias")),
    )


class Block(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("before_attention", "before_mlp")),
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *((name, c_int64) for name in ("idle_attention", "idle_ffn", "window")),
        *((name, c_int64) for name in ("parallel_ffn", "parallel_next")),
    )


class Decoder(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("blocks", "width", "heads", "key_heads", "head_width")),
        *((name, c_int64) for name in ("inner", "activation")),
        ("epsilon", c_double),
        ("block", POINTER(Block)),
        ("norm", c_void_p),
        ("head", Matrix),
        *((name, c_void_p) for name in ("cos", "sin")),
    )


class Step(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("tokens", "rows", "room", "every")),
        *((name, c_void_p) for name in ("counts", "filled", "positions", "kinds", "hidden")),
        *((name, c_void_p) for name in ("keys", "values", "pictured", "logits")),
    )


class Engine:
    """Threads that multiply; `threads` = 0 takes every core that this process may use."""

    def __init__(self, threads: int = 0, variant: str = ""):
        self._library = load()
        if self._library is None:
            raise SettingsError(absent())
        count = threads or len(os.sched_getaffinity(0))
        chosen = VARIANTS.index(variant) if variant else -1
        self._engine = self._library.engine_open(count, chosen)
        if not self._engine:
            raise ResourceError("There is no memory for the native engine's threads.")

    @property
    def variant(self) -> str:
        """What its kernels are compiled for."""
        return VARIANTS[self._open().engine_variant(self._engine)]

    def multiply(self, matrix: Matrix, given: ndarray) -> ndarray:
        """[tokens, columns] fp32 -> [tokens, rows]."""
        given = np.ascontiguousarray(given, np.float32)
        made = np.empty((len(given), matrix.rows), np.float32)
        self._done(
            self._open().multiply(
                self._engine, ctypes.byref(matrix), address(given), len(given), address(made)
            )
        )
        return made

    def step(self, decoder: Decoder, step: Step) -> None:
        """Reads tokens and writes their rows' logits."""
        arguments = ctypes.byref(decoder), ctypes.byref(step)
        self._done(self._open().step_through(self._engine, *arguments))

    def close(self) -> None:
        if self._engine:
            self._open().engine_close(self._engine)
            self._engine = None

    def _open(self) -> ctypes.CDLL:
        assert self._library is not None
        return self._library

    def _done(self, result: int) -> None:
        if result:
            raise ResourceError("There is no memory for so many tokens at once; ask shorter ones.")


@cache
def load() -> ctypes.CDLL | None:
    """The library as the wheel holds it, or compiled here; None where neither can be."""
    if sources.BUILT.is_file():
        library = ctypes.CDLL(str(sources.BUILT))
    else:
        library = compiled.library("native", sources.SOURCES, sources.FLAGS, sources.HEADERS)
    if library is None:
        return None
    library.engine_open.restype = c_void_p
    library.engine_open.argtypes = (c_int64, c_int64)
    library.engine_close.argtypes = (c_void_p,)
    library.engine_variant.argtypes = (c_void_p,)
    library.multiply.argtypes = (c_void_p, POINTER(Matrix), c_void_p, c_int64, c_void_p)
    library.step_through.argtypes = (c_void_p, POINTER(Decoder), POINTER(Step))
    library.check_matrix.argtypes = (POINTER(Matrix), c_int64)
    for name in ("engine_variant", "best_variant", "multiply", "step_through", "check_matrix"):
        getattr(library, name).restype = c_int64
    return library


def absent() -> str:
    """Why there is no library, in one line; nothing where there is one."""
    if load() is not None:
        return ""
    return (
        f"The native engine needs a C compiler ({', '.join(compiled.COMPILERS)}), and none that "
        f"works was found. Install gcc, or use --runtime torch, which reads native exports too."
    )


def check(matrix: Matrix, count: int) -> int:
    """The first row whose bits, starts and `count` values do not fit together, or -1."""
    library = load()
    assert library is not None
    return library.check_matrix(ctypes.byref(matrix), count)


def address(array: ndarray) -> int:
    """Where an array begins."""
    return array.ctypes.data
