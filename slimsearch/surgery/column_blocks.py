"""Blocks of columns from left to right, each caught up with the errors of those before it.

The errors of a block reach the columns behind it in two steps: those of the same span when their
turn comes, all others in one product at the span's end. So most of a solve is large products.

Legend: U upper Cholesky factor of the inverse Hessian, E errors (w_j - q_j) / U_jj.
"""

from collections.abc import Iterator

from torch import Tensor

from slimsearch.surgery.hessian import full_precision

BLOCK = 128  # columns that choose their mask together
SPAN = 512  # columns whose errors reach the columns behind them in one product


def caught_up(solved: Tensor, upper: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Yields (first column, end, E [rows, width]) of each block of `solved` [rows, columns].

    Whoever takes them solves the block in place and fills in its E before asking for the next.
    """
    rows, columns = solved.shape
    errors = solved.new_empty(rows, min(SPAN, columns))
    with full_precision():
        for first in range(0, columns, SPAN):
            last = min(first + SPAN, columns)
            for start in range(first, last, BLOCK):
                end, done = min(start + BLOCK, last), start - first
                before = upper[first:start, start:end]
                solved[:, start:end].addmm_(errors[:, :done], before, alpha=-1)
                yield start, end, errors[:, done : end - first]
            behind = upper[first:last, last:]
            solved[:, last:].addmm_(errors[:, : last - first], behind, alpha=-1)
