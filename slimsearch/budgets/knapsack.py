"""The cheapest genes that take a given amount, where costs add up gene by gene.

A knapsack, solved by dynamic programming. Blocks come one after the other, each in every shape that
it can have, its matrices at every level. Genes about all blocks at once are settled before, one
after the other, by a bound: at one price for what is left each block chooses by itself, and the
price is raised until enough is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, sqrt

import numpy as np
from numpy import ndarray

from slimsearch.budgets.bill import Bill, Spent, Tariff
from slimsearch.policy import Gene

BINS = 2000  # of what is taken up to the target, where genes are picked by their cost
NEAR = 2  # bins that count as on the target: sizes are rounded to whole bins
HALVINGS = 25  # of the range that a price lies in
RANGE = 1e8  # a price lies within so many times of what all genes cost for all that is spent
SWEEPS = 2  # over the genes about all blocks

Costs = Sequence[Sequence[float]]  # gene x choice


@dataclass(frozen=True)
class Group:
    """Genes that are picked together, such as a block's: every shape, its matrices' levels in it.

    Amounts and costs are by shape; those of levels by shape, gene and choice, a cost infinite
    where a gene has no such choice.
    """

    own: Sequence[int]  # the genes of the shape
    shapes: Sequence[tuple[int, ...]]  # their choices
    amounts: ndarray  # [shapes]
    costs: ndarray  # [shapes]
    rows: Sequence[int]  # the genes of levels
    level_amounts: ndarray  # [shapes, genes, choices]
    level_costs: ndarray  # the same

    def at(self, price: float) -> tuple[float, float]:
        """What the best shape takes and costs where a unit is worth a price."""
        picked = (self.level_costs - price * self.level_amounts).argmin(2)[..., None]
        costs = self.costs + np.take_along_axis(self.level_costs, picked, 2).sum((1, 2))
        amounts = self.amounts + np.take_along_axis(self.level_amounts, picked, 2).sum((1, 2))
        best = int((costs - price * amounts).argmin())
        return float(amounts[best]), float(costs[best])


def solve(bill: Bill, genes: Sequence[Gene], costs: Costs, wanted: float) -> list[int]:
    """Genes of least cost whose amount is about `wanted`."""
    start = [0] * len(genes)
    if not isinstance(bill, Spent):
        anyway, amounts = bill.offers(start)
        return _pack(start, [_alone(amounts, costs)], wanted - anyway)
    groups, anyway = _groups(bill, genes, costs, start)
    least = inf
    for where in [w for w in bill.common if len(genes[w].choices) > 1] * SWEEPS:
        for choice in range(len(genes[where].choices)):
            trial = [*start]
            trial[where] = choice
            tried, before = _groups(bill, genes, costs, trial)
            cost = sum(costs[w][trial[w]] for w in bill.common) + _bound(tried, wanted - before)
            if cost < least:
                start, least, groups, anyway = trial, cost, tried, before
    return _pack(start, groups, wanted - anyway)


def _pack(start: Sequence[int], groups: Sequence[Group], wanted: float) -> list[int]:
    """`least[b]` is the least cost of taking b bins with the groups seen so far."""
    if wanted <= 0:
        return list(start)
    unit = wanted / BINS
    widest = max(
        int(g.amounts.max() / unit + g.level_amounts.max(initial=0) / unit) for g in groups
    )
    least = np.full(BINS + widest + 2, np.inf)
    least[0] = 0.0
    packed = []
    for group in groups:
        shapes = [_levels(least, group, shape, unit) for shape in range(len(group.shapes))]
        table = np.array([found for found, _ in shapes])
        packed.append((table.argmin(0).astype(np.int16), [picked for _, picked in shapes]))
        least = table.min(0)
    away = np.maximum(np.abs(np.arange(len(least)) - BINS) - NEAR, 0)
    away[~np.isfinite(least)] = len(least)
    at = int(np.lexsort((least, away))[0])  # nearest to the target, then cheapest
    return _unpack(start, groups, packed, at, unit)


def _levels(least: ndarray, group: Group, shape: int, unit: float) -> tuple[ndarray, list[ndarray]]:
    """The least costs once a group is in, in one shape, and which level each gene has then."""
    found = _shifted(least, round(float(group.amounts[shape]) / unit), float(group.costs[shape]))
    picked = []
    for amounts, costs in zip(group.level_amounts[shape], group.level_costs[shape], strict=True):
        tried = np.array(
            [_shifted(found, w, c) for w, c in zip(_bins(amounts, unit), costs, strict=True)]
        )
        picked.append(tried.argmin(0).astype(np.int16))
        found = tried.min(0)
    return found, picked


def _unpack(
    start: Sequence[int],
    groups: Sequence[Group],
    packed: Sequence[tuple[ndarray, list[list[ndarray]]]],
    at: int,
    unit: float,
) -> list[int]:
    """The choices that led to a bin, back from the last group to the first."""
    found = list(start)
    for group, (shapes, levels) in zip(reversed(groups), reversed(packed), strict=True):
        shape = int(shapes[at])
        for where, index in zip(group.own, group.shapes[shape], strict=True):
            found[where] = index
        for place in range(len(group.rows) - 1, -1, -1):
            choice = int(levels[shape][place][at])
            found[group.rows[place]] = choice
            at -= int(_bins(group.level_amounts[shape, place], unit)[choice])
        at -= round(float(group.amounts[shape]) / unit)
    return found


def _bound(groups: Sequence[Group], wanted: float) -> float:
    """What it costs to take enough at one price for all; infinite where none takes enough."""
    usual = sum(float(g.level_costs[np.isfinite(g.level_costs)].sum()) for g in groups) or 1.0
    low, high, found = usual / max(wanted, 1.0) / RANGE, usual / max(wanted, 1.0) * RANGE, inf
    for _ in range(HALVINGS):
        price = sqrt(low * high)
        picked = [group.at(price) for group in groups]
        if sum(amount for amount, _ in picked) >= wanted:
            found, high = sum(cost for _, cost in picked), price
        else:
            low = price
    return found


def _alone(amounts: Sequence[ndarray], costs: Costs) -> Group:
    """All genes as one group of one shape."""
    rows = range(len(amounts))
    level_amounts, level_costs = _padded([dict(enumerate(amounts))], rows, costs)
    return Group((), [()], np.zeros(1), np.zeros(1), rows, level_amounts, level_costs)


def _groups(
    bill: Spent, genes: Sequence[Gene], costs: Costs, start: Sequence[int]
) -> tuple[list[Group], float]:
    """The blocks, and what is taken whatever they choose; genes about all are as in `start`."""
    found, anyway = [], bill.total - bill.rest
    for block in range(len(bill.own)):
        group, most = _of_block(bill, genes, costs, start, block)
        found.append(group)
        anyway -= most
    return found, anyway


def _of_block(
    bill: Spent, genes: Sequence[Gene], costs: Costs, start: Sequence[int], block: int
) -> tuple[Group, float]:
    """A block's shapes, and the most that it can spend."""
    own, tariffs, shape_costs = bill.own[block], [], []
    shapes = list(product(*(range(len(genes[where].choices)) for where in own)))
    for shape in shapes:
        trial = [*start]
        for where, index in zip(own, shape, strict=True):
            trial[where] = index
        tariffs.append(bill.tariff(block, trial))
        shape_costs.append(sum(costs[w][i] for w, i in zip(own, shape, strict=True)))
    keep = _undominated(tariffs, shape_costs)
    shapes, tariffs = [shapes[i] for i in keep], [tariffs[i] for i in keep]
    rows = list(tariffs[0].columns)
    spends = np.array([t.fixed + sum(c.max() for c in t.columns.values()) for t in tariffs])
    amounts = [{w: c.max() - c for w, c in t.columns.items()} for t in tariffs]
    level_amounts, level_costs = _padded(amounts, rows, costs)
    for number, tariff in enumerate(tariffs):
        for place, where in enumerate(rows):
            if not tariff.columns[where].any():  # not computed: whatever its level, no cost
                level_costs[number, place] = np.where(np.isinf(level_costs[number, place]), inf, 0)
    most = float(spends.max())
    paid = np.array([shape_costs[i] for i in keep], dtype=float)
    return Group(own, shapes, most - spends, paid, rows, level_amounts, level_costs), most


def _undominated(tariffs: Sequence[Tariff], costs: Sequence[float]) -> list[int]:
    """Of shapes that spend alike, the cheapest."""
    best: dict[tuple, int] = {}
    for number, tariff in enumerate(tariffs):
        key = (tariff.fixed, *(float(column[0]) for column in tariff.columns.values()))
        if key not in best or costs[number] < costs[best[key]]:
            best[key] = number
    return sorted(best.values())


def _padded(
    amounts: Sequence[Mapping[int, ndarray]], rows: Sequence[int], costs: Costs
) -> tuple[ndarray, ndarray]:
    """Amounts and costs of levels as [shapes, genes, choices]."""
    longest = max((len(costs[where]) for where in rows), default=1)
    shape = (len(amounts), len(rows), longest)
    taken, paid = np.zeros(shape), np.full(shape, inf)
    for number, some in enumerate(amounts):
        for place, where in enumerate(rows):
            taken[number, place, : len(some[where])] = some[where]
            paid[number, place, : len(costs[where])] = costs[where]
    return taken, paid


def _shifted(least: ndarray, width: int, cost: float) -> ndarray:
    found = np.full(len(least), np.inf)
    if width < len(least) and cost < inf:
        found[width:] = least[: len(least) - width] + cost
    return found


def _bins(amounts: ndarray, unit: float) -> ndarray:
    return np.rint(amounts / unit).astype(int)
