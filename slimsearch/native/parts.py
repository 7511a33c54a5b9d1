"""Which tensors a native export holds, and how a matrix is packed.

A sparse matrix NAME [rows, columns] is
    NAME.mask    int64 [rows, words]   a bit for each weight, the low one first, 64 columns a word
    NAME.starts  int64 [rows + 1]      which of the values is a row's first; the last says how many
    NAME.values  [kept + padding]      weights whose bit is set, row after row
A dense one has values alone, its rows filled up to whole words with zeros. In int8 there are also
    NAME.scale   float32 [rows]        what one step of a row is worth
    NAME.sums    int32 [rows]          the sum of a row's steps
and NAME.bias float32 [rows] where the layer has one. Behind the values lie 64 to 127 zero bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from slimsearch.graphs.anatomy import Decoder, Matrix
from slimsearch.graphs.int8 import row_scale, to_steps

WORD = 64  # columns of a word of the mask
SLACK = 64  # bytes behind values that kernels may read
ROLES = ("q", "k", "v", "o", "gate", "up", "down")
NORMS = ("before_attention", "before_mlp")
CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A tensor that `make` gives, as contiguous bytes, when its turn comes."""

    name: str
    code: str  # safetensors' name of its dtype
    shape: tuple[int, ...]
    make: Callable[[], ndarray]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * SIZES[self.code]


@dataclass(frozen=True)
class Steps:
    """A matrix in whole numbers: `steps` int8 [rows, columns], `scale` fp32 [rows]."""

    steps: Tensor
    scale: Tensor


def parts_of(
    decoder: Decoder, dtype: str, steps: Callable[[Matrix], Steps | None]
) -> Iterator[Part]:
    """Everything of a decoder; `steps` are those of an int8 matrix that are known already."""
    for index, block in enumerate(decoder.blocks):
        for norm in NORMS:
            yield plain(f"blocks.{index}.{norm}", getattr(block, norm).scale, "float32")
        for role in ROLES:
            matrix = block.matrices[role]
            yield from packed(matrix, dtype, steps(matrix))
    assert decoder.norm is not None
    assert decoder.norm.scale is not None
    yield plain("norm", decoder.norm.scale, "float32")
    (rotation,) = decoder.rotations
    yield plain("cos", rotation.cos, "float32")
    yield plain("sin", rotation.sin, "float32")
    wide = "bfloat16" if dtype == "int8" else dtype
    yield from dense(Matrix("embedding", decoder.embedding, None), wide)
    if dtype == "int8" or not tied(decoder):
        yield from dense(decoder.head, dtype, steps(decoder.head))


def tied(decoder: Decoder) -> bool:
    """Whether the head has the embedding's weights."""
    return decoder.head.weight.data_ptr() == decoder.embedding.data_ptr() and (
        decoder.head.bias is None
    )


def packed(matrix: Matrix, dtype: str, steps: Steps | None = None) -> Iterator[Part]:
    """A matrix with a bit for each weight, unless without zeros enough it is smaller without."""
    weight, extra = _weight(matrix, dtype, steps)
    rows, columns = matrix.weight.shape
    words = -(-columns // WORD)
    kept = int(_kept(weight()).count_nonzero())
    width = SIZES[CODES[dtype]]
    if rows * words * 8 + kept * width >= rows * words * WORD * width:
        yield from dense(matrix, dtype, steps)
        return

    def starts() -> ndarray:
        counts = _kept(weight()).sum(1)
        return np.concatenate([[0], counts.cumsum(0).numpy()]).astype(np.int64)

    def values() -> ndarray:
        whole = weight()
        return _slackened(whole[_kept(whole)])

    count = (kept * width + SLACK + 63) // 64 * 64 // width
    yield Part(f"{matrix.name}.mask", "I64", (rows, words), lambda: _mask(weight()))
    yield Part(f"{matrix.name}.starts", "I64", (rows + 1,), starts)
    yield Part(f"{matrix.name}.values", CODES[dtype], (count,), values)
    yield from extra


def dense(matrix: Matrix, dtype: str, steps: Steps | None = None) -> Iterator[Part]:
    """A matrix of whole rows."""
    weight, extra = _weight(matrix, dtype, steps)
    rows, columns = matrix.weight.shape
    wide, width = -(-columns // WORD) * WORD, SIZES[CODES[dtype]]

    def values() -> ndarray:
        whole = torch.nn.functional.pad(weight(), (0, wide - columns))
        return _slackened(whole.flatten())

    count = (rows * wide * width + SLACK + 63) // 64 * 64 // width
    yield Part(f"{matrix.name}.values", CODES[dtype], (count,), values)
    yield from extra


def plain(name: str, tensor: Tensor, dtype: str) -> Part:
    """A tensor as it is."""

    def make() -> ndarray:
        return raw(tensor.detach().to("cpu", getattr(torch, dtype)).contiguous())

    return Part(name, CODES[dtype], tuple(tensor.shape), make)


def raw(tensor: Tensor) -> ndarray:
    """The bytes of a contiguous tensor."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _weight(
    matrix: Matrix, dtype: str, steps: Steps | None
) -> tuple[Callable[[], Tensor], list[Part]]:
    """A matrix in a dtype, made when asked for, and what else is kept of it."""
    extra = []
    if dtype == "int8":

        def weight() -> Tensor:
            return to_steps(matrix.weight) if steps is None else steps.steps

        def sums() -> ndarray:
            return raw(weight().sum(1, dtype=torch.int32))

        rows = (matrix.weight.shape[0],)
        scale = row_scale(matrix.weight) if steps is None else steps.scale
        extra = [
            plain(f"{matrix.name}.scale", scale, "float32"),
            Part(f"{matrix.name}.sums", "I32", rows, sums),
        ]
    else:

        def weight() -> Tensor:
            return matrix.weight.detach().to("cpu", getattr(torch, dtype))

    if matrix.bias is not None:
        extra.append(plain(f"{matrix.name}.bias", matrix.bias, "float32"))
    return weight, extra


def _kept(weight: Tensor) -> Tensor:
    """Which weights are not zero; a negative zero is none, as masks by multiplication leave it."""
    return weight != 0


def _mask(weight: Tensor) -> ndarray:
    kept = _kept(weight)
    wide = torch.nn.functional.pad(kept, (0, -kept.shape[1] % WORD))
    return np.packbits(wide.numpy(), axis=1, bitorder="little")


def _slackened(values: Tensor) -> ndarray:
    content = raw(values.contiguous())
    whole = (len(content) + SLACK + 63) // 64 * 64
    return np.pad(content, (0, whole - len(content)))
