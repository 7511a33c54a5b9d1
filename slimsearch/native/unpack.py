"""A native export as the model folder that it came from: names and dtypes, zeros exact.

What was written in bf16 or float32 comes back exactly, wherever the checkpoint held it so; int8
comes back as steps times their scale. A negative zero comes back as zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slimsearch import files
from slimsearch.model.checkpoint import SINGLE
from slimsearch.native import form
from slimsearch.native.form import Held, Shape, Tensors
from slimsearch.native.mapped import DTYPES
from slimsearch.native.parts import CODES, SLACK, WORD, Part, raw


def unpack(held: Held, folder: Path) -> None:
    """Writes the weights of an export, and what stands beside them, into an existing folder."""
    decoder, others = held.open(form.DECODER), held.open(form.OTHERS)
    shape = form.shape_in(decoder)
    with files.writing(folder):
        held.checkpoint.copy_beside(folder)
    form.write(folder / SINGLE, [*_decoder_parts(decoder, shape), *_other_parts(others)])


def matrix(tensors: Tensors, shape: Shape, name: str) -> Tensor:
    """A part of a decoder as it was before it was packed; a vector where it is one."""
    if f"{name}.values" not in tensors:
        return torch.from_numpy(tensors.array(name, np.float32).copy())
    wide = "bfloat16" if name == "embedding" and shape.dtype == "int8" else shape.dtype
    values = tensors.array(f"{name}.values", DTYPES[wide])
    rows, columns = _size(shape, name)
    words = -(-columns // WORD)
    whole = np.zeros((rows, words * WORD), values.dtype)
    if f"{name}.mask" in tensors:
        mask = tensors.array(f"{name}.mask", np.uint8, rows * words * 8)
        kept = np.unpackbits(mask, bitorder="little").astype(bool)
        whole.reshape(-1)[kept] = values[: np.count_nonzero(kept)]
    else:
        whole = values[: -(SLACK // values.itemsize)][: whole.size].reshape(whole.shape)
    weight = torch.from_numpy(np.require(whole[:, :columns], requirements=["C", "W"]))
    if wide == "int8":
        return weight * torch.from_numpy(tensors.array(f"{name}.scale", np.float32).copy())[:, None]
    return weight.view(torch.bfloat16) if wide == "bfloat16" else weight


def _size(shape: Shape, name: str) -> tuple[int, int]:
    query, key = shape.heads * shape.head_width, shape.key_heads * shape.head_width
    return {
        "q": (query, shape.width), "k": (key, shape.width), "v": (key, shape.width),
        "o": (shape.width, query), "gate": (shape.inner, shape.width),
        "up": (shape.inner, shape.width), "down": (shape.width, shape.inner),
        "head": (shape.vocabulary, shape.width), "embedding": (shape.vocabulary, shape.width),
    }[name.rpartition(".")[2]]  # fmt: skip


def _decoder_parts(tensors: Tensors, shape: Shape) -> Iterator[Part]:
    for name, (key, dtype) in shape.names.items():

        def make(name: str = name, dtype: str = dtype) -> np.ndarray:
            return raw(matrix(tensors, shape, name).to(getattr(torch, dtype)).contiguous())

        bias_or_norm = f"{name}.values" not in tensors
        size = tensors.shape(name) if bias_or_norm else _size(shape, name)
        yield Part(key, CODES[dtype], size, make)


def _other_parts(tensors: Tensors) -> Iterator[Part]:
    for name in tensors.names():
        yield Part(name, tensors.code(name), tensors.shape(name), partial(_bytes, tensors, name))


def _bytes(tensors: Tensors, name: str) -> np.ndarray:
    return tensors.array(name, np.uint8)
