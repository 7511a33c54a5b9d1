"""(1 + lambda) level switches in EvoPress's manner: the best so far, with a few genes exchanged."""

from collections.abc import Sequence

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.contracts import Strategy
from slimsearch.record.candidate import Genes, Hints, Score

SWITCHES = 3  # at most so many pairs of genes trade a level
TRIES = 20  # draws for each child before a small space is taken to be used up


class LevelSwitch(Strategy):
    allocations = ("uniform",)

    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._budget, self._count, self._keep = budget, candidates, survivors
        self._random = np.random.default_rng(seed)
        self._parent = budget.uniform(self._random)
        self._totals: dict[Genes, float] = {}

    def start(self, hints: Hints) -> None:
        self._parent = hints.allocations.get("uniform", self._parent)

    def ask(self) -> list[Genes]:
        parent = self.survivors[0] if self._totals else self._parent
        found = [] if self._totals else [parent]
        for _ in range(TRIES * self._count):
            if len(found) == self._count:
                break
            times = int(self._random.integers(1, SWITCHES, endpoint=True))
            child = self._budget.switched(parent, times, self._random)
            if child not in self._totals and child not in found:
                found.append(child)
        return found

    def tell(self, scores: Sequence[Score]) -> None:
        self._totals |= {score.genes: score.total for score in scores}

    @property
    def survivors(self) -> list[Genes]:
        return sorted(self._totals, key=lambda genes: self._totals[genes])[: self._keep]
