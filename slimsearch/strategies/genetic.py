"""A genetic search (pymoo): tournament, block-wise crossover, level switches, all on budget.

The first generation holds the allocations that are known by rule and random genes. Survivors are
told again whenever the projector has moved: an old score under an old projector is stale.
"""
# pymoo annotates nothing; what pyright reads into its defaults is wrong.
# pyright: reportArgumentType=false, reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.evaluator import Evaluator
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from slimsearch.budgets.budget import Budget
from slimsearch.contracts import Strategy
from slimsearch.record.candidate import Genes, Hints, Score
from slimsearch.strategies._pymoo import WORST, breeding, genes_of, genes_of_all


class Genetic(Strategy):
    allocations = ("uniform", "owl", "optimal", "optimal*3", "optimal*10")

    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._problem = Problem(n_var=len(budget.genes), n_obj=1, xl=0, xu=1, vtype=int)
        self._budget, self._count, self._keep, self._seed = budget, candidates, survivors, seed
        self._asked: Any = None
        self.start(Hints())

    def start(self, hints: Hints) -> None:
        self._algorithm = breeding(GA, self._budget, self._count, self._keep, self._seed, hints)
        self._algorithm.setup(self._problem, seed=self._seed, termination=NoTermination())

    def ask(self) -> list[Genes]:
        self._asked = self._algorithm.ask()  # None where crossover finds nothing new
        return [] if self._asked is None else genes_of_all(self._asked)

    def tell(self, scores: Sequence[Score]) -> None:
        found = {score.genes: score.total for score in scores}
        for population in (self._algorithm.pop, self._asked):
            for individual in population if population is not None else ():
                total = found.get(genes_of(individual.X))
                if total is not None:
                    individual.set("F", np.array([min(total, WORST)]))
        values = np.array([individual.F for individual in self._asked])
        Evaluator().eval(StaticProblem(self._problem, F=values), self._asked)
        self._algorithm.tell(infills=self._asked)
        # pymoo keeps the whole first generation; and whatever failed dies out.
        population: Any = self._algorithm.pop
        best = sorted(population, key=lambda individual: individual.F[0])
        alive = [individual for individual in best if individual.F[0] < WORST] or best
        self._algorithm.pop = Population.create(*alive[: self._keep])

    @property
    def survivors(self) -> list[Genes]:
        pop = self._algorithm.pop
        return [] if pop is None else genes_of_all(pop)
