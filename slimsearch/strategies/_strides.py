"""Strides away from a champion, each the best of all that are foretold to be worth it.

An outlook says for every change of every gene what it costs: along the gradient, and by how far
weights move. A stride is the policy on budget of least cost, as far as caution lets it go: how much
more than foretold the way of a gene's weights counts. That is learnt from what strides turned out
to cost (a normal distribution in closed form, in which genes share some of their caution): where
one gene's changes spoil whatever they are part of, the next strides leave it alone.
"""

from collections.abc import Collection, Sequence

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.record.candidate import Genes, Outlook, Score

BOLD = (1.0, 2.0, 4.0)  # times as cautious as was learnt
VARIED = 1.0  # by how many powers of two further strides vary that, and what shapes cost
STAY = 1e12  # the cost of a change that a stride does not make
TRIES = 10  # draws for each stride
ALL, EACH = 1.0, 2.0  # how far the caution of all genes, and of one, may lie from 1
LEAST, MOST = 0.25, 32.0  # caution
NOISE = 0.3  # of what the way is foretold to cost, that is none of these
VAGUE = 0.1  # of what it is foretold to cost for most, for each measurement on everything


class Strides:
    def __init__(self, budget: Budget, random: np.random.Generator):
        self._budget, self._random = budget, random
        self._outlook: Outlook | None = None
        count = len(budget.genes)
        self._precision = np.linalg.inv(ALL**2 + EACH**2 * np.eye(count))  # of caution
        self._pull = np.zeros(count)  # away from 1, by what was seen
        self.caution = np.ones(count)

    def turn(self, outlook: Outlook) -> None:
        self._outlook = outlook if outlook.along else None

    def propose(self, count: int, known: Collection[Genes]) -> list[Genes]:
        """So many new policies; fewer, where no others are worth it."""
        found: list[Genes] = []
        for index in range(TRIES * count if self._outlook else 0):
            if len(found) == count:
                break
            genes = self._budget.cheapest(self._costs(index))
            if genes not in known and genes not in found:
                found.append(genes)
        return found

    def learn(self, scores: Sequence[Score]) -> None:
        """Caution, by what changes of the champion were measured to cost."""
        of = {score.genes: score for score in scores if score.ok}
        if self._outlook is None or (base := of.pop(self._outlook.genes, None)) is None:
            return
        ways = {genes: _chosen(self._outlook.away, genes) for genes in of if self._alike(genes)}
        most = float(np.median([way.sum() for way in ways.values()])) if ways else 0.0
        for genes, way in ways.items():
            risen = of[genes].total - base.total
            left = risen - float(_chosen(self._outlook.along, genes).sum())
            noise = np.hypot(NOISE * way.sum(), VAGUE * most / of[genes].share ** 0.5)
            if way.any():
                self._precision += np.outer(way, way) / noise**2
                self._pull += way * (left - way.sum()) / noise**2
        learnt = 1 + np.linalg.solve(self._precision, self._pull)
        self.caution = np.clip(learnt, LEAST, MOST)

    def _costs(self, index: int) -> list[list[float]]:
        """The first strides weigh all changes alike; others leave some out."""
        assert self._outlook is not None
        bold, price, share = BOLD[index] if index < len(BOLD) else 0.0, 1.0, 1.0
        if not bold:
            bold, price = 2.0 ** (1 + VARIED * self._random.standard_normal(2))
            share = self._random.uniform(0.25, 1)
        free = self._random.random(len(self._budget.genes)) < share
        found = []
        for where, gene in enumerate(self._budget.genes):
            along, away = np.array(self._outlook.along[where]), np.array(self._outlook.away[where])
            costs = along + bold * self.caution[where] * away if gene.size else price * along
            if not free[where]:
                costs = np.where(np.arange(len(costs)) == self._outlook.genes[where], 0.0, STAY)
            found.append(costs.tolist())
        return found

    def _alike(self, genes: Genes) -> bool:
        """Whether blocks run as the champion's do: what else costs is not the way of weights."""
        assert self._outlook is not None
        both = zip(self._budget.genes, genes, self._outlook.genes, strict=True)
        return all(gene.size or index == now for gene, index, now in both)


def _chosen(costs: Sequence[Sequence[float]], genes: Genes) -> np.ndarray:
    return np.array([some[index] for some, index in zip(costs, genes, strict=True)])
