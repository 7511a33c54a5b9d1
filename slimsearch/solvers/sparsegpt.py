"""Removes what costs least by the Hessian and mends the rest column by column (SparseGPT).

All levels of a matrix are solved together as extra rows over one inverse factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import torch
from torch import Tensor

from slimsearch.contracts import Pruned, Solver
from slimsearch.errors import SettingsError, SolverError
from slimsearch.surgery import obs
from slimsearch.surgery.column_blocks import BLOCK
from slimsearch.surgery.hessian import Factor, Hessian
from slimsearch.surgery.masks import groups

ROWS = 256  # compared at a time on a CPU, so that they stay in the cache


@dataclass(frozen=True)
class SparseGPT(Solver):
    """`reference_count` prunes floor(n * level) + 1 weights a block, as the published code does."""

    damping: float = 0.01
    reference_count: bool = False
    keep: str = ""  # "2:4" keeps two of every four neighbours in a row, chosen as mended so far

    def prune(self, weights: Tensor, hessian: Hessian, levels: Sequence[float]) -> list[Pruned]:
        return self.prune_together([weights], hessian, [levels])[0]

    def prune_together(
        self, matrices: Sequence[Tensor], hessian: Hessian, levels: Sequence[Sequence[float]]
    ) -> list[list[Pruned]]:
        keep = None
        for weights, some in zip(matrices, levels, strict=True):
            keep = groups(self.keep, weights.shape[1], some)
            if not all(map(isfinite, map(float, weights.aminmax()))):  # NaN comes through
                raise SolverError("The weights of this matrix are not finite (NaN or infinity).")
        if keep and BLOCK % keep[1]:
            raise SettingsError(f"`keep` {self.keep}: sparsegpt needs groups that divide {BLOCK}.")
        whole = [weights.float() for weights in matrices]
        inner = [sorted({level for level in some if 0.0 < level < 1.0}) for some in levels]
        solved = self._solve(whole, hessian, inner, keep)
        return [
            [_outer(weights, hessian, level) or found[level] for level in some]
            for weights, some, found in zip(whole, levels, solved, strict=True)
        ]

    def _solve(
        self,
        matrices: Sequence[Tensor],
        hessian: Hessian,
        levels: Sequence[Sequence[float]],
        keep: tuple[int, int] | None,
    ) -> list[dict[float, Pruned]]:
        """For each matrix what its levels, all between 0 and 1, give."""
        at = [place for place, some in enumerate(levels) if some]
        found: list[dict[float, Pruned]] = [{} for _ in levels]
        if not at:
            return found
        factor = hessian.factor(self.damping)
        # Counted once and off the device, which would have to be waited for at every block.
        dead = [int(part.sum()) for part in factor.dead.cpu().split(BLOCK)]
        alive = [matrices[i] for i in at]
        if any(dead):
            alive = [weights.masked_fill(factor.dead, 0.0) for weights in alive]
        counts = [[self._counts(matrices[i].shape, level, dead) for level in levels[i]] for i in at]
        together = obs.solve_together(
            alive, factor.upper, counts, whole_ties=self.reference_count, keep=keep
        )
        for i, before, (solved, losses) in zip(at, alive, together, strict=True):
            for level, matrix, loss in zip(levels[i], solved, losses, strict=True):
                error = _undamped(loss, matrix, before, factor, hessian)
                found[i][level] = Pruned(matrix, error)
        return found

    def _counts(self, shape: torch.Size, level: float, dead: Sequence[int]) -> list[int]:
        """How many weights go from each block of columns; `dead` columns it has."""
        if self.reference_count:
            return _published_counts(shape, level)
        return _exact_counts(shape, level, dead)


def _outer(weights: Tensor, hessian: Hessian, level: float) -> Pruned | None:
    """Nothing goes, not even what dead columns hold, or everything; None between the two."""
    if level == 0.0:
        return Pruned(weights.clone(), 0.0)
    if level == 1.0:
        return Pruned(torch.zeros_like(weights), hessian.half_trace(weights))
    return None


def _published_counts(shape: torch.Size, level: float) -> list[int]:
    rows, columns = shape
    widths = [min(BLOCK, columns - start) for start in range(0, columns, BLOCK)]
    return [int(rows * width * level) + 1 for width in widths]


def _exact_counts(shape: torch.Size, level: float, dead: Sequence[int]) -> list[int]:
    """How many weights go from each block, so that the sum is round(level * size).

    Dead columns go in any case. Where a block has more of them than its share, the other blocks
    give up as many, each in proportion to what it has to give.
    """
    rows, columns = shape
    ends = [*range(0, columns, BLOCK), columns]
    totals = [round(level * (rows * end)) for end in ends]
    shares = [after - before for before, after in pairwise(totals)]
    floors = [rows * count for count in dead]
    slack = [max(share - floor, 0) for share, floor in zip(shares, floors, strict=True)]
    total = max(sum(slack), 1)
    surplus = sum(max(floor - share, 0) for share, floor in zip(shares, floors, strict=True))
    surplus = min(surplus, sum(slack))
    counts, seen = [], 0
    for floor, spare in zip(floors, slack, strict=True):
        given = surplus * (seen + spare) // total - surplus * seen // total
        counts.append(floor + spare - given)
        seen += spare
    return counts


def _undamped(
    loss: float, solved: Tensor, before: Tensor, factor: Factor, hessian: Hessian
) -> float:
    """1/2 tr(dW H dW^T) from sum(err^2) / 2, which is the same for the damped H.

    The damping adds added / 2 * ||dW||^2. Where that is nearly all of the loss, the difference
    would be rounding, and the trace is computed instead.
    """
    moved = 0.0
    rows = ROWS if solved.device.type == "cpu" else len(solved)
    for after, original in zip(solved.split(rows), before.split(rows), strict=True):
        lengths = torch.linalg.vector_norm(after - original, dim=1)  # fp32 will do along a row
        moved += float(lengths.square().sum(dtype=torch.float64))
    error = loss - factor.added / 2 * moved
    return error if error > 0.01 * loss else hessian.half_trace(solved - before)
