"""The solve of obs.py on a CUDA device, its steps inside a block of columns as Triton kernels.

Matrices that share an input are solved together, each at all its levels: their rows stand one
below the other, and each matrix at each level is a `segment` of rows with a count of its own. For
each block of columns, once it has caught up with those before it (column_blocks.py):
1. choose   the count-th lowest score of every segment, by radix selection without a sort: two
            kernels a digit, one that counts digits and one that picks
2. mend     column by column, a tile of rows in registers: one kernel, one pass over memory
Scores are computed where they are needed and never stored. Nothing here waits for the device, so
that the host can be far ahead. No kernel multiplies matrices, and the products are fp32 without
TF32.

Legend: W weights, U upper Cholesky factor of the inverse Hessian, E errors (w_j - q_j) / U_jj.
"""

# The kernels' types are triton's own: pyright takes their annotations literally.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from slimsearch.surgery.column_blocks import BLOCK, caught_up

TILE = 16  # rows that one program mends in its registers
LISTED = 64  # rows whose scores one program counts
DIGITS = ((24, 7), (16, 8), (8, 8), (0, 8))  # of a score's 31 bits: (shift, bits), highest first
BINS = 256

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
    upper = upper.contiguous()
    segments = _Segments.of(matrices, counts, upper.device)
    solved = torch.cat([m.repeat(len(c), 1) for m, c in zip(matrices, counts, strict=True)])
    squares = torch.zeros(len(solved), device=upper.device)  # of E, by row
    rows, columns = solved.shape
    for start, end, errors in caught_up(solved, upper):
        if keep is None:
            equal = segments.choose(solved, upper, start, end)
        else:
            equal = segments.of_row  # not read: the kernel chooses on its way
        _mend_kernel[(triton.cdiv(rows, TILE),)](
            solved, errors, upper, squares,
            segments.of_row, segments.first, segments.limits, segments.places,
            equal, equal.cumsum(0) if keep is None else equal,
            rows, columns, errors.stride(0), start, end - start,
            WHOLE_TIES=whole_ties, KEEP=keep[0] if keep else 0, GROUP=keep[1] if keep else 1,
            BLOCK=BLOCK, TILE=TILE,
        )  # fmt: skip
    return segments.apart(solved, squares)


@dataclass(frozen=True)
class _Segments:
    """Where each matrix at each level has its rows, and what it chooses in the block at hand."""

    shapes: list[tuple[int, int]]  # (rows, levels) of each matrix
    quotas: Tensor  # [segments, blocks] int32: how many go from each
    of_row: Tensor  # [rows in all] int32: the segment of each row
    first: Tensor  # [rows in all] int32: the first row of its segment
    lists: Tensor  # [lists, 3] int32: stretches of at most LISTED rows as (segment, from, to)
    histogram: Tensor  # [segments, BINS] int32, empty between kernels
    limits: Tensor  # [segments] int32: the bits of the highest score that goes
    places: Tensor  # [segments] int32: how many of those equal to it go

    @staticmethod
    def of(matrices: Sequence[Tensor], counts: Sequence[Counts], device: torch.device) -> _Segments:
        shapes = [(len(m), len(some)) for m, some in zip(matrices, counts, strict=True)]
        lengths = torch.tensor([rows for rows, levels in shapes for _ in range(levels)])
        ends = lengths.cumsum(0)
        starts = ends - lengths
        lists = [
            (segment, row, min(row + LISTED, end))
            for segment, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
            for row in range(start, end, LISTED)
        ]
        columns = matrices[0].shape[1]
        widths = [min(BLOCK, columns - start) for start in range(0, columns, BLOCK)]
        quotas = torch.tensor([level for matrix in counts for level in matrix])
        quotas = quotas.clamp(min=0).minimum(lengths[:, None] * torch.tensor(widths))
        of_row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        given = quotas, of_row, starts[of_row], torch.tensor(lists)
        return _Segments(
            shapes,
            *(some.to(device, torch.int32).contiguous() for some in given),
            torch.zeros(len(lengths), BINS, dtype=torch.int32, device=device),
            *(torch.empty(len(lengths), dtype=torch.int32, device=device) for _ in range(2)),
        )

    def choose(self, solved: Tensor, upper: Tensor, start: int, end: int) -> Tensor:
        """Fills `limits` and `places`; gives how many scores of each row equal its limit."""
        columns, blocks = solved.shape[1], self.quotas.shape[1]
        for shift, bits in DIGITS:
            _count_kernel[(len(self.lists),)](
                solved, upper, self.lists, self.limits, self.histogram, columns, start, end - start,
                SHIFT=shift, BITS=bits, BINS=BINS, BLOCK=BLOCK, LISTED=LISTED, num_warps=8,
            )  # fmt: skip
            _pick_kernel[(len(self.quotas),)](
                self.histogram, self.quotas, self.limits, self.places, start // BLOCK, blocks,
                FIRST=shift == DIGITS[0][0], SHIFT=shift, BINS=BINS,
            )  # fmt: skip
        equal = torch.empty_like(self.of_row)
        _equal_kernel[(len(self.lists),)](
            solved, upper, self.lists, self.limits, equal, columns, start, end - start,
            BLOCK=BLOCK, LISTED=LISTED, num_warps=8,
        )  # fmt: skip
        return equal

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


@triton.jit
def _scores(W, diagonal):
    """(W_j / U_jj)^2 as integers: not negative, so that their bits have the order of the numbers.

    The same in every kernel, to the last bit.
    """
    scaled = tl.div_rn(W, tl.broadcast_to(diagonal[None, :], W.shape))
    return (scaled * scaled).to(tl.int32, bitcast=True)


@triton.jit
def _scores_of_rows(
    solved, upper, row, last, columns, start, width, BLOCK: tl.constexpr
):  # fmt: skip
    """The scores of some rows in a block, and which of them are there."""
    column = tl.arange(0, BLOCK)
    inside = (row < last)[:, None] & (column < width)[None, :]
    place = solved + row.to(tl.int64)[:, None] * columns + start + column[None, :]
    diagonal = upper + (start + column).to(tl.int64) * (columns + 1)
    W = tl.load(place, mask=inside, other=0.0)
    return _scores(W, tl.load(diagonal, mask=column < width, other=1.0)), inside


@triton.jit
def _count_kernel(
    solved, upper, lists, limits, histogram, columns, start, width,
    SHIFT: tl.constexpr, BITS: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
    LISTED: tl.constexpr,
):  # fmt: skip
    """Adds to a segment's histogram a digit of those scores whose higher digits are its limit's."""
    line = lists + tl.program_id(0) * 3
    segment, first, last = tl.load(line), tl.load(line + 1), tl.load(line + 2)
    row = first + tl.arange(0, LISTED)
    scores, counted = _scores_of_rows(solved, upper, row, last, columns, start, width, BLOCK)
    if SHIFT + BITS < 31:
        higher = tl.load(limits + segment) >> (SHIFT + BITS)
        counted = counted & ((scores >> (SHIFT + BITS)) == higher)
    digits = (scores >> SHIFT) & (BINS - 1)
    size: tl.constexpr = LISTED * BLOCK
    bins = tl.histogram(tl.reshape(digits, [size]), BINS, mask=tl.reshape(counted, [size]))
    place = histogram + segment * BINS + tl.arange(0, BINS)
    tl.atomic_add(place, bins, mask=bins > 0)


@triton.jit
def _pick_kernel(
    histogram, quotas, limits, places, block, blocks,
    FIRST: tl.constexpr, SHIFT: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """The digit of a segment's place-th lowest score; its place among those of the same digits."""
    segment = tl.program_id(0)
    line = histogram + segment * BINS + tl.arange(0, BINS)
    counted = tl.load(line)
    tl.store(line, tl.zeros([BINS], tl.int32))
    if FIRST:
        place = tl.load(quotas + segment * blocks + block)
    else:
        place = tl.load(places + segment)
    reached = tl.cumsum(counted, 0)
    lower = reached < place
    digit = tl.sum(lower.to(tl.int32), 0)
    tl.store(places + segment, place - tl.max(tl.where(lower, reached, 0), 0))
    if FIRST:
        tl.store(limits + segment, digit << SHIFT)
    else:
        tl.store(limits + segment, tl.load(limits + segment) | (digit << SHIFT))


@triton.jit
def _equal_kernel(
    solved, upper, lists, limits, equal, columns, start, width,
    BLOCK: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    """How many scores of each row equal their segment's limit."""
    line = lists + tl.program_id(0) * 3
    segment, first, last = tl.load(line), tl.load(line + 1), tl.load(line + 2)
    row = first + tl.arange(0, LISTED)
    scores, inside = _scores_of_rows(solved, upper, row, last, columns, start, width, BLOCK)
    same = inside & (scores == tl.load(limits + segment))
    tl.store(equal + row, tl.sum(same.to(tl.int32), 1), mask=row < last)


@triton.jit
def _mend_kernel(
    solved, errors, upper, squares, of_row, first, limits, places, equal, equal_up_to,
    rows, columns, stride, start, width,
    WHOLE_TIES: tl.constexpr, KEEP: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Solves a tile of rows of one block in place, and writes its E.

    With KEEP each group of columns chooses when its turn comes, from the weights as mended so far.
    """
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = row < rows
    column = tl.arange(0, BLOCK)
    inside = there[:, None] & (column < width)[None, :]
    place = solved + row.to(tl.int64)[:, None] * columns + start + column[None, :]
    W = tl.load(place, mask=inside, other=0.0)
    diagonal = tl.load(
        upper + (start + column).to(tl.int64) * (columns + 1), mask=column < width, other=1.0
    )
    if KEEP == 0:
        segment = tl.load(of_row + row, mask=there, other=0)
        limit = tl.load(limits + segment, mask=there, other=0)[:, None]
        scores = _scores(W, diagonal)
        same = inside & (scores == limit)
        if WHOLE_TIES:
            tied = same
        else:  # in the order of their index: those of the rows above go first
            top = tl.load(first + row, mask=there, other=0)
            above = tl.load(equal_up_to + row, mask=there, other=0) - tl.load(
                equal + row, mask=there, other=0
            )
            above -= tl.load(equal_up_to + top, mask=there, other=0) - tl.load(
                equal + top, mask=there, other=0
            )
            left = tl.load(places + segment, mask=there, other=0) - above
            tied = same & (tl.cumsum(same.to(tl.int32), 1) <= left[:, None])
        gone = (tied | (inside & (scores < limit))).to(tl.int32)
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
    tl.store(errors + row.to(tl.int64)[:, None] * stride + column[None, :], E, mask=inside)
    before = tl.load(squares + row, mask=there, other=0.0)
    tl.store(squares + row, before + tl.sum(E * E, 1), mask=there)


@triton.jit
def _lowest_of_group(
    W, diagonal, column, first,
    KEEP: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """1 where a weight of the group that begins at `first` goes: all but its KEEP highest."""
    scores = _scores(W, diagonal)
    lower = tl.zeros([TILE, BLOCK], tl.int32)
    for i in range(GROUP):
        other = tl.sum(tl.where((column == first + i)[None, :], scores, 0), 1)[:, None]
        earlier = (first + i < column)[None, :]
        lower += ((other < scores) | ((other == scores) & earlier)).to(tl.int32)
    within = ((column >= first) & (column < first + GROUP))[None, :]
    return (within & (lower < GROUP - KEEP)).to(tl.int32)
