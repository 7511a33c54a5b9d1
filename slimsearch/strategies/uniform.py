"""No search: every part at the level nearest to the target, asked once."""

from collections.abc import Sequence

import numpy as np

from slimsearch.budget import Budget
from slimsearch.candidate import Genes, Score
from slimsearch.contracts import Strategy
from slimsearch.first_generation import uniform_genes


class Uniform(Strategy):
    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._genes = uniform_genes(budget, np.random.default_rng(seed))
        self._asked = False

    def ask(self) -> list[Genes]:
        return [] if self._asked else [self._genes]

    def tell(self, scores: Sequence[Score]) -> None:
        self._asked = True

    @property
    def survivors(self) -> list[Genes]:
        return [self._genes] if self._asked else []
