"""A front instead of one best (pymoo's NSGA-II): no term of a survivor gets better but by another.

Every term of the objective counts for itself and their weights do not. Where one of them is a cost,
such as bytes, the ratio is free and the front reaches from light pruning to heavy.
"""
# pymoo annotates nothing; what pyright reads into its defaults is wrong.
# pyright: reportArgumentType=false

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, RankAndCrowding
from pymoo.core.evaluator import Evaluator
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from slimsearch.budgets.budget import Budget
from slimsearch.contracts import Strategy
from slimsearch.record.candidate import Genes, Hints, Score
from slimsearch.strategies._pymoo import WORST, breeding, genes_of, genes_of_all


class Pareto(Strategy):
    weighs_terms = True

    allocations = ("uniform", "owl", "optimal")

    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._budget, self._count, self._keep, self._seed = budget, candidates, survivors, seed
        self._asked: Any = None
        self.start(Hints())

    def start(self, hints: Hints) -> None:
        self._algorithm = breeding(NSGA2, self._budget, self._count, self._keep, self._seed, hints)
        self._algorithm.setup(self._problem(2), seed=self._seed, termination=NoTermination())

    def ask(self) -> list[Genes]:
        self._asked = self._algorithm.ask()  # None where crossover finds nothing new
        return [] if self._asked is None else genes_of_all(self._asked)

    def tell(self, scores: Sequence[Score]) -> None:
        found = {score.genes: _values(score) for score in scores}
        count = max(map(len, found.values())) or 1
        for population in (self._algorithm.pop, self._asked):
            for individual in population if population is not None else ():
                values = found.get(genes_of(individual.X), individual.F)
                failed = len(values) != count  # now, or in a round where all did
                individual.set("F", np.array([WORST] * count if failed else values))
        problem = StaticProblem(
            self._problem(count), F=np.array([individual.F for individual in self._asked])
        )
        Evaluator().eval(problem, self._asked)
        with np.errstate(invalid="ignore"):  # where all failed, none is less crowded
            self._algorithm.tell(infills=self._asked)
            # pymoo keeps the whole first generation; and whatever failed dies out.
            pop: Any = self._algorithm.pop
            alive = [individual for individual in pop if individual.F[0] < WORST]
            self._algorithm.pop = RankAndCrowding().do(
                problem, Population.create(*(alive or pop)), n_survive=self._keep,
                random_state=self._algorithm.random_state,  # without it, ties fall by chance
            )  # fmt: skip

    @property
    def survivors(self) -> list[Genes]:
        pop = self._algorithm.pop
        return [] if pop is None else genes_of_all(pop)

    def _problem(self, terms: int) -> Problem:
        return Problem(n_var=len(self._budget.genes), n_obj=terms, xl=0, xu=1, vtype=int)


def _values(score: Score) -> list[float]:
    """Each term, in the objective's order; nothing for a candidate that failed."""
    return (list(score.terms.values()) or [score.total]) if score.ok else []
