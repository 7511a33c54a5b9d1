"""How a matrix stands in a graph. Another way of writing them is another function like `dense`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from slimsearch.graphs.anatomy import Matrix
from slimsearch.graphs.sheet import Sheet

Linear = Callable[[Sheet, str, Matrix], str]  # (sheet, what goes in, matrix) -> what comes out


def dense(sheet: Sheet, given: str, matrix: Matrix) -> str:
    """fp32, [columns in, rows out]."""
    rows, columns = matrix.shape
    weight = sheet.weight(
        f"{matrix.name}.weight",
        np.float32,
        (columns, rows),
        lambda: written(matrix).t(),
    )
    return biased(sheet, sheet.op("MatMul", given, weight, name=matrix.name), matrix)


def biased(sheet: Sheet, made: str, matrix: Matrix) -> str:
    """Adds the layer's bias, if it has one."""
    bias = matrix.bias
    if bias is None:
        return made
    name = f"{matrix.name}.bias"
    return sheet.op("Add", made, sheet.weight(name, np.float32, bias.shape, lambda: bias))


def written(matrix: Matrix) -> torch.Tensor:
    """The weight with its columns of zeros."""
    return F.pad(matrix.weight.detach(), (0, matrix.blank)) if matrix.blank else matrix.weight
