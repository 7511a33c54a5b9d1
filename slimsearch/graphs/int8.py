"""A matrix as int8: a scale for each row, one for each token as it comes, zeros exactly zero.

The zero point of the weights is 0, so what pruning removed stays removed, and a weight below half
a step joins it. Every operator here is one that DeepSparse runs itself, which is why the largest
size is taken by a square and a root: it has no Abs, and dies of DynamicQuantizeLinear. Of zeros in
patches (whole rows, or columns side by side) it makes wrong numbers in int8: `patchy` knows them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from slimsearch.graphs import steps
from slimsearch.graphs.anatomy import Matrix
from slimsearch.graphs.linear import biased, dense, written
from slimsearch.graphs.sheet import Sheet
from slimsearch.graphs.steps import STEPS

MIDDLE = 128  # what stands for zero among the unsigned activations
LEAST = 1e-12  # the least scale, for a token or a row of zeros
# Of 1,028 random matrices DeepSparse's prompts got 116 wrong, all of them within these bounds, none
# of them of scattered zeros. The bounds hold 295 others too.
ZEROS, MORE, BESIDE = 0.3, 0.01, 0.4


class Int8:
    """A Linear, one for each sheet: matrices that read the same input share its quantised form.
    Those named in `spared` stay in fp32."""

    def __init__(self, spared: Collection[str] = ()) -> None:
        self._spared = spared
        self._quantised: dict[str, tuple[str, str]] = {}

    def __call__(self, sheet: Sheet, given: str, matrix: Matrix) -> str:
        if matrix.name in self._spared:
            return dense(sheet, given, matrix)
        if given not in self._quantised:
            self._quantised[given] = _quantised(sheet, given)
        entering, size = self._quantised[given]
        weight, scale = _weights(sheet, matrix, steps.here(), parts=STEPS)
        middle, zero = sheet.constant(MIDDLE, np.uint8), sheet.constant(0, np.int8)
        summed = sheet.op("MatMulInteger", entering, weight, middle, zero, name=matrix.name)
        exact = sheet.op("Cast", summed, to=sheet.onnx.TensorProto.FLOAT)
        made = sheet.op("Mul", sheet.op("Mul", exact, scale), size)
        return biased(sheet, made, matrix)


def patchy(matrix: Matrix) -> bool:
    """Whether more whole fours of a row's columns are zero than scattered zeros would make, and
    few zeros are beside them."""
    zero = to_steps(written(matrix), steps.here()) == 0  # [rows, columns], columns a multiple of 4
    zeros = float(zero.float().mean())
    fours = float(zero.unflatten(1, (-1, 4)).all(2).float().mean())
    beside, more = (zeros - fours) / max(1 - fours, LEAST), fours - zeros**4
    return zeros > ZEROS and more > MORE and beside < BESIDE + more


def stored(sheet: Sheet, given: str, matrix: Matrix) -> str:
    """A Linear whose weights are kept as int8 and widened to fp32 where they are multiplied."""
    whole, scale = _weights(sheet, matrix, STEPS)
    weight = sheet.op("DequantizeLinear", whole, scale, axis=1)
    return biased(sheet, sheet.op("MatMul", given, weight, name=matrix.name), matrix)


def row_scale(weight: torch.Tensor, most: int = STEPS) -> torch.Tensor:
    """What one step is worth in each row, [rows], fp32."""
    largest = weight.detach().to("cpu", torch.float32).abs().amax(dim=1)
    return largest.clamp_min(LEAST) / most


def to_steps(weight: torch.Tensor, most: int = STEPS) -> torch.Tensor:
    """The nearest whole number of steps, int8 [rows, columns]."""
    exact = weight.detach().to("cpu", torch.float32) / row_scale(weight, most).unsqueeze(1)
    return exact.round_().to(torch.int8)


def _weights(sheet: Sheet, matrix: Matrix, most: int, parts: int = 1) -> tuple[str, str]:
    """Whole steps [columns, rows], and what one of the `parts` of a step is worth in each row."""
    rows, columns = matrix.shape
    whole = sheet.weight(
        f"{matrix.name}.weight_int8",
        np.int8,
        (columns, rows),
        lambda: to_steps(written(matrix), most).t(),
    )
    scale = sheet.weight(
        f"{matrix.name}.scale",
        np.float32,
        (rows,),
        lambda: row_scale(matrix.weight, most) / parts,
    )
    return whole, scale


def _quantised(sheet: Sheet, given: str) -> tuple[str, str]:
    """Steps [.., tokens, width] around MIDDLE, and each token's largest size [.., tokens, 1]."""
    square = sheet.op("ReduceMax", sheet.op("Mul", given, given), axes=[-1], keepdims=1)
    size = sheet.op("Add", sheet.op("Sqrt", square), sheet.constant(LEAST, np.float32))
    entering = sheet.op(
        "QuantizeLinear",
        sheet.op("Div", given, size),
        sheet.constant(1 / STEPS, np.float32),
        sheet.constant(MIDDLE, np.uint8),
    )
    return entering, size
