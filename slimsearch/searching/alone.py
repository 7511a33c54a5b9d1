"""A strategy with a single candidate: an allocation by rule, asked once."""

from collections.abc import Sequence

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.contracts import Strategy
from slimsearch.record.candidate import Genes, Hints, Score


class Alone(Strategy):
    """Asks for the allocation that a subclass names."""

    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._genes = budget.uniform(np.random.default_rng(seed))
        self._asked = False

    def start(self, hints: Hints) -> None:
        self._genes = hints.allocations.get(self.allocations[0], self._genes)

    def ask(self) -> list[Genes]:
        return [] if self._asked else [self._genes]

    def tell(self, scores: Sequence[Score]) -> None:
        self._asked = True

    @property
    def survivors(self) -> list[Genes]:
        return [self._genes] if self._asked else []
