"""Random search: fresh genes every round, the best kept. The honest baseline at equal cost."""

from collections.abc import Sequence

import numpy as np

from slimsearch.budget import Budget
from slimsearch.candidate import Genes, Score
from slimsearch.contracts import Strategy
from slimsearch.first_generation import first_generation


class Random(Strategy):
    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._budget, self._count, self._keep = budget, candidates, survivors
        self._random = np.random.default_rng(seed)
        self._totals: dict[Genes, float] = {}

    def ask(self) -> list[Genes]:
        fresh = first_generation(self._budget, self._count + 1, self._random)
        return [genes for genes in fresh if genes not in self._totals][: self._count]

    def tell(self, scores: Sequence[Score]) -> None:
        self._totals |= {score.genes: score.total for score in scores}

    @property
    def survivors(self) -> list[Genes]:
        return sorted(self._totals, key=lambda genes: self._totals[genes])[: self._keep]
