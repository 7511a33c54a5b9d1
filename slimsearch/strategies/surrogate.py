"""Foretells what policies cost, and asks for those that should cost least.

Most of a round's candidates are strides away from the champion, by the loss's gradient there. Some
are survivors with a few levels switched: what no foretelling knows of is found by trying. Where
genes change how blocks run, or nothing is told of gradients, others are the cheapest under prices
that the scores teach. Each is on budget by construction.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.contracts import Strategy
from slimsearch.record.candidate import Genes, Hints, Outlook, Score
from slimsearch.searching.first_generation import first_generation
from slimsearch.strategies._prices import Prices
from slimsearch.strategies._strides import Strides

NEAR = 0.25  # of the candidates are survivors with a few levels switched
PRICED = 0.25  # are cheapest by prices, where genes change how blocks run
SWITCHES = 4  # at most
TRIES = 20  # draws for each of them


class Surrogate(Strategy):
    allocations = ("uniform", "owl", "optimal", "optimal*3", "optimal*10", "plain", "plain*3")
    looks_ahead = True

    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._budget, self._count, self._keep = budget, candidates, survivors
        self._random = np.random.default_rng(seed)
        self._prices, self._strides = Prices(budget, self._random), Strides(budget, self._random)
        shapes = not all(gene.size for gene in budget.genes)
        self._priced = ceil(PRICED * candidates) if shapes else 0
        self._known: list[Genes] = []
        self._scores: dict[Genes, Score] = {}
        self._alive: list[Genes] = []

    def start(self, hints: Hints) -> None:
        self._known = list(hints.allocations.values())
        self._prices.start(hints.costs)

    def turn(self, outlook: Outlook) -> None:
        self._strides.turn(outlook)

    def ask(self) -> list[Genes]:
        if not self._scores:
            return self._first()
        free = self._count - ceil(NEAR * self._count)
        asked = self._strides.propose(free - self._priced, self._scores)
        asked += self._prices.propose(free - len(asked), self._scores, asked)
        return asked + self._around(asked)

    def tell(self, scores: Sequence[Score]) -> None:
        self._strides.learn(scores)
        self._scores |= {score.genes: score for score in scores}
        pool = dict.fromkeys([*self._alive, *(score.genes for score in scores)])
        self._alive = sorted(pool, key=lambda genes: self._scores[genes].total)[: self._keep]

    @property
    def survivors(self) -> list[Genes]:
        return list(self._alive)

    def _first(self) -> list[Genes]:
        """What is known by rule, strides from there, and what would be cheapest if prices were a
        little different."""
        found = first_generation(self._budget, max(len(self._known), 1), self._random, self._known)
        found += self._strides.propose(self._count // 2, found)
        found += self._prices.propose(max(self._count - len(found), 0), {}, found)
        found += first_generation(self._budget, self._count + 1, self._random)
        return list(dict.fromkeys(found))[: self._count]

    def _around(self, asked: Sequence[Genes]) -> list[Genes]:
        """Level switches of survivors: what the model knows nothing of is found by trying."""
        found: list[Genes] = []
        for _ in range(TRIES * self._count):
            parent = self._alive[int(self._random.integers(len(self._alive)))]
            times = int(self._random.integers(1, SWITCHES, endpoint=True))
            genes = self._budget.switched(parent, times, self._random)
            if genes not in self._scores and genes not in asked and genes not in found:
                found.append(genes)
            if len(found) == self._count - len(asked):
                break
        return found
