"""The solve of obs.py on a CUDA device, its steps inside a block of columns as Triton kernels.

Matrices that share an input are solved together, each at all its levels: their rows stand one
below the other, and each matrix at each level is a `segment` of rows with a count of its own. For
each block of columns:
1. catch up   what the errors of earlier blocks of the same span take from it: a product in torch
2. choose     the count-th lowest score of every segment, by radix selection without a sort
3. mend       column by column, a tile of rows in registers: one kernel, one pass over memory
Nothing here waits for the device, so that the host can be far ahead. No kernel multiplies
matrices, and the products in torch are fp32 without TF32.

Legend: W weights, U upper Cholesky factor of the inverse Hessian, E errors (w_j - q_j) / U_jj.
"""

# The kernels' types are triton's own: pyright takes their annotations literally.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from slimsearch.hessian import full_precision

BLOCK = 128  # columns that choose their mask together
SPAN = 512  # columns whose errors reach the columns behind them in one product
TILE = 16  # rows that one program mends in its registers
LISTED = 64  # rows whose scores one program counts
DIGITS = ((20, 11), (9, 11), (0, 9))  # of a score's 31 bits: (shift, bits), highest first
BINS = 2048

Counts = Sequence[Sequence[int]]  # [level][block]


def solve(
    matrices: Sequence[Tensor],
    upper: Tensor,
    counts: Sequence[Counts],
    *,
    whole_ties: bool = False,
    keep: tuple[int, int] | None = None,
) -> list[tuple[Tensor, list[float]]]:
    """As `obs.solve`, for several matrices of the same columns; counts[matrix][level][block]."""
    columns, upper = upper.shape[0], upper.contiguous()
    segments = _Segments.of([(len(m), len(c)) for m, c in zip(matrices, counts, strict=True)],
                            upper.device)  # fmt: skip
    # [segment, block]: how many go from each
    quotas = torch.tensor([level for matrix in counts for level in matrix], device=upper.device)
    solved = torch.cat([m.repeat(len(c), 1) for m, c in zip(matrices, counts, strict=True)])
    squares = torch.zeros(len(solved), device=upper.device)  # of E, by row
    errors = solved.new_zeros(len(solved), min(SPAN, -(-columns // BLOCK) * BLOCK))
    with full_precision():
        for first in range(0, columns, SPAN):
            last = min(first + SPAN, columns)
            for start in range(first, last, BLOCK):
                end, done = min(start + BLOCK, last), start - first
                block = solved[:, start:end]
                block.addmm_(errors[:, :done], upper[first:start, start:end], alpha=-1)
                if keep is None:
                    scores = (block / upper.diagonal()[start:end]).square_()
                    quota = quotas[:, start // BLOCK]
                    chosen = scores, *_choose(scores, quota, segments, whole_ties)
                else:
                    chosen = (solved,) * 3  # not read: the kernel chooses on its way
                _mend_kernel[(triton.cdiv(len(solved), TILE),)](
                    solved, errors, upper, squares, *chosen,
                    len(solved), columns, errors.shape[1], start, end - start, done,
                    KEEP=keep[0] if keep else 0, GROUP=keep[1] if keep else 1,
                    BLOCK=BLOCK, TILE=TILE,
                )  # fmt: skip
            spread = errors[:, : last - first]
            solved[:, last:].addmm_(spread, upper[first:last, last:], alpha=-1)
    return segments.apart(solved, squares)


@dataclass(frozen=True)
class _Segments:
    """Where each matrix at each level has its rows."""

    shapes: list[tuple[int, int]]  # (rows, levels) of each matrix
    of_row: Tensor  # [rows in all]: the segment of each row
    first: Tensor  # [rows in all]: the first row of its segment
    lists: Tensor  # [lists, 3] int32: stretches of at most LISTED rows as (segment, from, to)
    count: int

    @staticmethod
    def of(shapes: list[tuple[int, int]], device: torch.device) -> _Segments:
        lengths = [rows for rows, levels in shapes for _ in range(levels)]
        ends = torch.tensor(lengths).cumsum(0)
        starts = ends - torch.tensor(lengths)
        lists = [
            (segment, row, min(row + LISTED, end))
            for segment, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
            for row in range(start, end, LISTED)
        ]
        of_row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        return _Segments(
            shapes,
            of_row.to(device),
            starts[of_row].to(device),
            torch.tensor(lists, dtype=torch.int32, device=device),
            len(lengths),
        )

    def sums(self, of_rows: Tensor) -> Tensor:
        """Whole numbers added up by segment, [segments]."""
        return of_rows.new_zeros(self.count).index_add_(0, self.of_row, of_rows)

    def before(self, of_rows: Tensor) -> Tensor:
        """For each row the sum over the rows of its segment that stand above it."""
        above = of_rows.cumsum(0) - of_rows
        return above - above[self.first]

    def apart(self, solved: Tensor, squares: Tensor) -> list[tuple[Tensor, list[float]]]:
        """For each matrix its levels [levels, rows, columns] and their halves of sum(E^2)."""
        lengths = [rows * levels for rows, levels in self.shapes]
        found = []
        for (rows, levels), whole, of_rows in zip(
            self.shapes, solved.split(lengths), squares.split(lengths), strict=True
        ):
            sums = of_rows.view(levels, rows).sum(1, dtype=torch.float64) / 2
            found.append((whole.view(levels, rows, -1), sums.tolist()))
        return found


def _choose(
    scores: Tensor, quotas: Tensor, segments: _Segments, whole_ties: bool
) -> tuple[Tensor, Tensor]:
    """For each row the score below which a weight goes, and how many equal to it go as well."""
    limit = _select(scores, quotas.clamp(min=1), segments)[segments.of_row]
    none = (quotas <= 0)[segments.of_row] & (not whole_ties)
    below = (scores < limit[:, None]).sum(1)
    equal = (scores == limit[:, None]).sum(1)
    if whole_ties:
        return limit, equal.to(torch.int32)
    missing = (quotas - segments.sums(below))[segments.of_row] - segments.before(equal)
    ties = torch.minimum(missing.clamp(min=0), equal)
    return limit.masked_fill(none, 0.0), ties.masked_fill(none, 0).to(torch.int32)


def _select(scores: Tensor, places: Tensor, segments: _Segments) -> Tensor:
    """The place-th lowest score (from 1) of every segment, found digit by digit.

    Scores are not negative, so that their bits as integers have the order of the numbers.
    """
    found = torch.zeros(segments.count, dtype=torch.int32, device=scores.device)
    for shift, bits in DIGITS:
        histogram = torch.zeros(segments.count, BINS, dtype=torch.int32, device=scores.device)
        _count_kernel[(len(segments.lists),)](
            scores.view(torch.int32), segments.lists, found, histogram, scores.shape[1],
            SHIFT=shift, BITS=bits, BINS=BINS, BLOCK=BLOCK, LISTED=LISTED,
        )  # fmt: skip
        reached = histogram.cumsum(1)
        digit = (reached < places[:, None]).sum(1)
        before = reached.gather(1, (digit - 1).clamp(min=0)[:, None])[:, 0]
        places = places - torch.where(digit > 0, before, 0)
        found |= (digit << shift).to(torch.int32)
    return found.view(torch.float32)


@triton.jit
def _count_kernel(
    scores, lists, found, histogram, width,
    SHIFT: tl.constexpr, BITS: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
    LISTED: tl.constexpr,
):  # fmt: skip
    """Adds to a segment's histogram one digit of those scores whose higher digits are `found`."""
    line = lists + tl.program_id(0) * 3
    segment, first, last = tl.load(line), tl.load(line + 1), tl.load(line + 2)
    row = first + tl.arange(0, LISTED)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < last) & (column < width)
    values = tl.load(scores + row.to(tl.int64) * width + column, mask=inside, other=0)
    higher = tl.load(found + segment) >> (SHIFT + BITS)
    counted = inside & ((values >> (SHIFT + BITS)) == higher)
    digits = (values >> SHIFT) & ((1 << BITS) - 1)
    size: tl.constexpr = LISTED * BLOCK
    bins = tl.histogram(
        tl.reshape(digits, [size]), BINS, mask=tl.reshape(counted, [size])
    )  # fmt: skip
    tl.atomic_add(histogram + segment * BINS + tl.arange(0, BINS), bins)


@triton.jit
def _mend_kernel(
    solved, errors, upper, squares, scores, limits, ties,
    rows, columns, span, start, width, done,
    KEEP: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Solves a tile of rows of one block in place; writes E beside the earlier blocks' of a span.

    With KEEP each group of columns chooses when its turn comes, from the weights as mended so far.
    """
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = row < rows
    row = row.to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = there[:, None] & (column < width)[None, :]
    place = solved + row[:, None] * columns + start + column[None, :]
    W = tl.load(place, mask=inside, other=0.0)
    diagonal = tl.load(
        upper + (start + column).to(tl.int64) * (columns + 1), mask=column < width, other=1.0
    )
    if KEEP == 0:
        score = tl.load(
            scores + row[:, None] * width + column[None, :], mask=inside, other=float("inf")
        )
        limit = tl.load(limits + row, mask=there, other=0.0)[:, None]
        equal = (score == limit) & inside
        place_among_equals = tl.cumsum(equal.to(tl.int32), 1)
        tied = place_among_equals <= tl.load(ties + row, mask=there, other=0)[:, None]
        gone = ((score < limit) | (equal & tied)).to(tl.int32)
    else:
        gone = tl.zeros([TILE, BLOCK], tl.int32)
    E = tl.zeros([TILE, BLOCK], tl.float32)
    for j in range(0, width):
        if KEEP > 0:  # noqa: SIM102  known when compiling, unlike the next
            if j % GROUP == 0:
                gone = gone | _lowest_of_group(W, diagonal, column, j, KEEP, GROUP, TILE, BLOCK)
        right = tl.load(
            upper + (start + j).to(tl.int64) * columns + start + column,
            mask=(column > j) & (column < width), other=0.0,
        )  # fmt: skip
        pivot = tl.load(upper + (start + j).to(tl.int64) * (columns + 1))
        here = (column == j)[None, :]
        error = tl.div_rn(tl.sum(tl.where(here & (gone != 0), W, 0.0), 1), pivot)
        E = tl.where(here, error[:, None], E)
        W -= error[:, None] * right[None, :]
    tl.store(place, tl.where(gone != 0, 0.0, W), mask=inside)
    tl.store(errors + row[:, None] * span + done + column[None, :], E, mask=inside)
    before = tl.load(squares + row, mask=there, other=0.0)
    tl.store(squares + row, before + tl.sum(E * E, 1), mask=there)


@triton.jit
def _lowest_of_group(
    W, diagonal, column, first,
    KEEP: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """1 where a weight of the group that begins at `first` goes: all but its KEEP highest."""
    scaled = tl.div_rn(W, tl.broadcast_to(diagonal[None, :], [TILE, BLOCK]))
    score = scaled * scaled
    lower = tl.zeros([TILE, BLOCK], tl.int32)
    for i in range(GROUP):
        other = tl.sum(tl.where((column == first + i)[None, :], score, 0.0), 1)[:, None]
        earlier = (first + i < column)[None, :]
        lower += ((other < score) | ((other == score) & earlier)).to(tl.int32)
    within = ((column >= first) & (column < first + GROUP))[None, :]
    return (within & (lower < GROUP - KEEP)).to(tl.int32)
