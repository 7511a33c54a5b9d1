"""What a decoder's layers do besides multiplying by matrices, spelled out in a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from slimsearch.graphs.anatomy import Norm
from slimsearch.graphs.sheet import Sheet

TAIL = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)  # of t, t^2 and on


def normed(sheet: Sheet, x: str, name: str, norm: Norm | None, epsilon: float) -> str:
    """RMSNorm or LayerNorm over the last axis; `x` itself where there is none."""
    if norm is None:
        return x
    if norm.centred:
        x = sheet.op("Sub", x, sheet.op("ReduceMean", x, axes=[-1], keepdims=1))
    square = sheet.op("Pow", x, sheet.constant(2, np.float32))
    mean = sheet.op("ReduceMean", square, axes=[-1], keepdims=1)
    root = sheet.op("Sqrt", sheet.op("Add", mean, sheet.constant(epsilon, np.float32)))
    made = sheet.op("Div", x, root)
    for kind, part, given in (("Mul", "weight", norm.scale), ("Add", "bias", norm.shift)):
        if given is not None:
            known = sheet.weight(
                f"{name}.{part}", np.float32, given.shape, lambda given=given: given
            )
            made = sheet.op(kind, made, known)
    return made


def activated(sheet: Sheet, x: str, kind: str, erf: bool = True) -> str:
    """`erf` is False for an engine that has no Erf."""
    if kind == "relu":
        return sheet.op("Relu", x)
    if kind == "silu":
        return sheet.op("Mul", x, sheet.op("Sigmoid", x))
    if kind == "gelu" and not erf:
        return _gelu_without_erf(sheet, x)
    half, one = (sheet.constant(n, np.float32) for n in (0.5, 1))
    if kind == "gelu":
        bent = sheet.op("Erf", sheet.op("Mul", x, sheet.constant(0.5**0.5, np.float32)))
    else:  # its approximation by tanh
        cube = sheet.op("Pow", x, sheet.constant(3, np.float32))
        cube = sheet.op("Mul", cube, sheet.constant(0.044715, np.float32))
        inner = sheet.op(
            "Mul", sheet.op("Add", x, cube), sheet.constant((2 / np.pi) ** 0.5, np.float32)
        )
        bent = sheet.op("Tanh", inner)
    return sheet.op("Mul", sheet.op("Mul", x, half), sheet.op("Add", bent, one))


def capped(sheet: Sheet, x: str, cap: float | None, tanh: bool = True) -> str:
    """Kept within the cap by a tanh, where there is one. `tanh` is False for DeepSparse, which dies
    of it behind a product, on two cores: (sigmoid(2x) - 1/2) * 2 is the same."""
    if cap is None:
        return x
    if tanh:
        limit = sheet.constant(cap, np.float32)
        return sheet.op("Mul", sheet.op("Tanh", sheet.op("Div", x, limit)), limit)
    bent = sheet.op("Sigmoid", sheet.op("Mul", x, sheet.constant(2 / cap, np.float32)))
    centred = sheet.op("Sub", bent, sheet.constant(0.5, np.float32))
    return sheet.op("Mul", centred, sheet.constant(2 * cap, np.float32))


def cut(sheet: Sheet, joined: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Pieces of these widths along the last axis, where what is joined is not in such already."""
    if len(joined) == len(widths):
        return list(joined)
    (whole,) = joined
    edges = np.cumsum([0, *widths]).tolist()
    return [part(sheet, whole, start, end, axis=-1) for start, end in pairwise(edges)]


def part(sheet: Sheet, x: str, start: int, end: int, axis: int) -> str:
    """A stretch of an axis."""
    edges = (sheet.constant([n], np.int64) for n in (start, end, axis))
    return sheet.op("Slice", x, *edges)


def _gelu_without_erf(sheet: Sheet, x: str) -> str:
    """max(x, 0) - |x| Q(|x|), for DeepSparse has no Erf. Q, what a normal distribution has
    beyond a place, is by Abramowitz and Stegun, 26.2.17, off by 7.5e-8 at most."""

    def number(value: float) -> str:
        return sheet.constant(value, np.float32)

    square = sheet.op("Mul", x, x)
    size = sheet.op("Sqrt", square)
    slope = sheet.op("Mul", size, number(0.2316419))
    t = sheet.op("Div", number(1), sheet.op("Add", slope, number(1)))
    tail = sheet.op("Mul", t, number(TAIL[-1]))
    for share in reversed(TAIL[:-1]):
        tail = sheet.op("Mul", sheet.op("Add", tail, number(share)), t)
    density = sheet.op("Exp", sheet.op("Mul", square, number(-0.5)))
    beyond = sheet.op("Mul", sheet.op("Mul", tail, density), number((2 * np.pi) ** -0.5))
    return sheet.op("Sub", sheet.op("Relu", x), sheet.op("Mul", size, beyond))
