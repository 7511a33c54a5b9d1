"""The cheapest genes that take a given amount, where costs add up gene by gene.

While the shape of the blocks is settled, amounts add up too: a knapsack, solved by dynamic
programming. The shape is found first, with a price on what is left: at one price each block chooses
by itself among its shapes, each with the levels that are then best, and the price is raised until
enough is taken. Genes about all blocks at once are tried one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, sqrt

import numpy as np
from numpy import ndarray

from slimsearch.bill import Bill, Spent
from slimsearch.policy import Gene

BINS = 2000  # of what is taken up to the target, where genes are picked by their cost
NEAR = 2  # bins that count as on the target: sizes are rounded to whole bins
HALVINGS = 25  # of the range that a price lies in
RANGE = 1e8  # a price lies within so many times of what all genes cost for all that is spent
SWEEPS = 2  # over the genes about all blocks

Costs = Sequence[Sequence[float]]  # gene x choice


def solve(bill: Bill, genes: Sequence[Gene], costs: Costs, wanted: float) -> list[int]:
    """Genes of least cost whose amount is about `wanted`."""
    start = [0] * len(genes)
    if isinstance(bill, Spent):
        start = _shape(bill, genes, costs, wanted)
    anyway, amounts = bill.offers(start)
    return _fill(start, amounts, costs, wanted - anyway)


def _fill(start: list[int], amounts: Sequence[ndarray], costs: Costs, wanted: float) -> list[int]:
    """`least[b]` is the least cost of taking b bins with the genes seen so far; a gene without
    amounts stays as it is."""
    open_ = [row for row, some in enumerate(amounts) if len(some) > 1 or some.any()]
    if not open_ or wanted <= 0:
        return start
    unit = wanted / BINS
    bins = {row: np.maximum(np.rint(amounts[row] / unit).astype(int), 0) for row in open_}
    most = BINS + max(int(some.max()) for some in bins.values())
    least = np.full(most + 1, np.inf)
    least[0] = 0.0
    picked = np.zeros((len(open_), most + 1), dtype=np.int16)
    for place, row in enumerate(open_):
        tried = np.full((len(bins[row]), most + 1), np.inf)
        for choice, (width, cost) in enumerate(zip(bins[row], costs[row], strict=True)):
            if width <= most:
                tried[choice, width:] = least[: most + 1 - width] + cost
        picked[place] = tried.argmin(0)
        least = tried.min(0)
    away = np.maximum(np.abs(np.arange(most + 1) - BINS) - NEAR, 0)
    away[~np.isfinite(least)] = most
    at = int(np.lexsort((least, away))[0])  # nearest to the target, then cheapest
    found = list(start)
    for place in range(len(open_) - 1, -1, -1):
        row = open_[place]
        found[row] = int(picked[place, at])
        at -= int(bins[row][found[row]])
    return found


def _shape(bill: Spent, genes: Sequence[Gene], costs: Costs, wanted: float) -> list[int]:
    """The genes of the cheapest shape found; those of levels at their first choice."""
    best, least = [0] * len(genes), inf
    best, least = _of_blocks(bill, genes, costs, wanted, best)
    for where in bill.common * SWEEPS:
        for choice in range(len(genes[where].choices)):
            trial = [*best]
            trial[where] = choice
            found, cost = _of_blocks(bill, genes, costs, wanted, trial)
            if cost < least - 1e-12 * abs(least):
                best, least = found, cost
    return best


def _of_blocks(
    bill: Spent, genes: Sequence[Gene], costs: Costs, wanted: float, start: Sequence[int]
) -> tuple[list[int], float]:
    """The blocks' own genes at the price that takes enough, and what all then costs; the genes
    about all blocks are those of `start`. The cost is infinite where no price takes enough."""
    blocks = [_options(bill, genes, costs, start, block) for block in range(len(bill.own))]
    common = sum(costs[where][start[where]] for where in bill.common)
    left = bill.total - bill.rest - wanted  # what may be spent
    usual = (sum(float(np.max(some)) for some in costs) or 1.0) / bill.total
    low, high = usual / RANGE, usual * RANGE
    chosen, loss = None, inf
    for _ in range(HALVINGS):
        price = sqrt(low * high)
        picked = [options.at(price) for options in blocks]
        if sum(spent for _, _, spent in picked) <= left:
            chosen, loss, high = picked, common + sum(cost for _, cost, _ in picked), price
        else:
            low = price
    found = list(start)
    for options, (choice, _, _) in zip(blocks, chosen or [], strict=bool(chosen)):
        for where, index in zip(options.own, options.combos[choice], strict=True):
            found[where] = index
    return found, loss


@dataclass(frozen=True)
class _Options:
    """A block's shapes, with what each costs and spends, and so each level of its matrices."""

    own: Sequence[int]  # genes
    combos: Sequence[tuple[int, ...]]  # choices of them, a shape each
    costs: ndarray  # [shapes]
    fixed: ndarray  # [shapes], spent anyway
    level_costs: ndarray  # [shapes, genes, choices]
    spends: ndarray  # the same

    def at(self, price: float) -> tuple[int, float, float]:
        """The best shape at a price: which it is, what it costs, what it spends."""
        paid = self.level_costs + price * self.spends
        picked = paid.argmin(2)[..., None]
        costs = self.costs + np.take_along_axis(self.level_costs, picked, 2).sum((1, 2))
        spends = self.fixed + np.take_along_axis(self.spends, picked, 2).sum((1, 2))
        best = int((costs + price * spends).argmin())
        return best, float(costs[best]), float(spends[best])


def _options(
    bill: Spent, genes: Sequence[Gene], costs: Costs, start: Sequence[int], block: int
) -> _Options:
    own = bill.own[block]
    combos = list(product(*(range(len(genes[where].choices)) for where in own)))
    tariffs = []
    for combo in combos:
        trial = [*start]
        for where, index in zip(own, combo, strict=True):
            trial[where] = index
        tariffs.append(bill.tariff(block, trial))
    rows = list(tariffs[0].columns)
    longest = max((len(genes[where].choices) for where in rows), default=1)
    level_costs = np.zeros((len(combos), len(rows), longest))
    spends = np.zeros_like(level_costs)
    for number, tariff in enumerate(tariffs):
        for place, (where, column) in enumerate(tariff.columns.items()):
            level_costs[number, place, len(column) :] = inf
            spends[number, place, : len(column)] = column
            if column.any():  # what is not computed costs nothing, whatever its level
                level_costs[number, place, : len(column)] = costs[where]
    return _Options(
        own,
        combos,
        np.array([sum(costs[w][i] for w, i in zip(own, c, strict=True)) for c in combos]),
        np.array([tariff.fixed for tariff in tariffs]),
        level_costs,
        spends,
    )
