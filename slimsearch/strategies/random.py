"""Random search: fresh genes every round, the best kept. The honest baseline at equal cost."""

from collections.abc import Sequence

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.contracts import Strategy
from slimsearch.record.candidate import Genes, Score
from slimsearch.searching.first_generation import first_generation


class Random(Strategy):
    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._budget, self._count, self._keep = budget, candidates, survivors
        self._random = np.random.default_rng(seed)
        self._asked: set[int] = set()  # hashes of genes: they stay small, however many there are
        self._alive: dict[Genes, float] = {}  # totals, the best first

    def ask(self) -> list[Genes]:
        fresh = first_generation(self._budget, self._count + 1, self._random)
        return [genes for genes in fresh if hash(genes) not in self._asked][: self._count]

    def tell(self, scores: Sequence[Score]) -> None:
        self._asked |= {hash(score.genes) for score in scores}
        told = self._alive | {score.genes: score.total for score in scores}
        best = sorted(told, key=lambda genes: told[genes])[: self._keep]
        self._alive = {genes: told[genes] for genes in best}

    @property
    def survivors(self) -> list[Genes]:
        return list(self._alive)
