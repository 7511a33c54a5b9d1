"""Steps away from a champion, each the best of all that are foretold to be worth it.

An outlook says for every change of every gene what it costs: along the gradient, and by how far
weights move. A step is the policy on budget of least cost, as far as caution lets it go: how much
more the way counts than was foretold is learnt from what earlier steps turned out to cost.
"""

from collections.abc import Collection, Sequence

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.record.candidate import Genes, Outlook, Score

BOLD = (1.0, 2.0, 4.0)  # times as cautious as was learnt
VARIED = 1.0  # by how many powers of two further steps vary that, and what shapes cost
STAY = 1e12  # the cost of a change that a step does not make
LEAST, MOST = 0.25, 32.0  # caution
TRIES = 10  # draws for each step


class Steps:
    def __init__(self, budget: Budget, random: np.random.Generator):
        self._budget, self._random = budget, random
        self._outlook: Outlook | None = None
        self._proposed: list[Genes] = []  # since the last turn
        self.caution = 1.0

    def turn(self, outlook: Outlook) -> None:
        self._outlook = outlook if outlook.along else None
        self._proposed = []

    def propose(self, count: int, known: Collection[Genes]) -> list[Genes]:
        """So many new policies; fewer, where no others are worth it."""
        found: list[Genes] = []
        for index in range(TRIES * count if self._outlook else 0):
            if len(found) == count:
                break
            genes = self._budget.cheapest(self._costs(index))
            if genes not in known and genes not in found:
                found.append(genes)
        self._proposed += found
        return found

    def learn(self, scores: Sequence[Score]) -> None:
        """Caution by which half of the steps cost no more than they were measured to cost."""
        totals = {score.genes: score.total for score in scores if score.ok}
        if self._outlook is None or self._outlook.genes not in totals:
            return
        found = []
        for genes in self._proposed:
            away = self._spent(self._outlook.away, genes)
            if genes in totals and away > 0:
                risen = totals[genes] - totals[self._outlook.genes]
                found.append((risen - self._spent(self._outlook.along, genes)) / away)
        if found:
            self.caution = float(np.clip(np.median(found), LEAST, MOST))

    def _costs(self, index: int) -> list[np.ndarray]:
        """The first steps weigh all changes alike; others leave some out."""
        assert self._outlook is not None
        bold, price, share = BOLD[index] if index < len(BOLD) else 0.0, 1.0, 1.0
        if not bold:
            bold, price = 2.0 ** (1 + VARIED * self._random.standard_normal(2))
            share = self._random.uniform(0.25, 1)
        free = self._random.random(len(self._budget.genes)) < share
        found = []
        for where, gene in enumerate(self._budget.genes):
            along, away = np.array(self._outlook.along[where]), np.array(self._outlook.away[where])
            costs = along + bold * self.caution * away if gene.size else price * along
            if not free[where]:
                costs = np.where(np.arange(len(costs)) == self._outlook.genes[where], 0.0, STAY)
            found.append(costs)
        return found

    @staticmethod
    def _spent(costs: Sequence[Sequence[float]], genes: Genes) -> float:
        return sum(some[index] for some, index in zip(costs, genes, strict=True))
