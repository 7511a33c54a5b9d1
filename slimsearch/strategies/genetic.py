"""A genetic search (pymoo): tournament, block-wise crossover, level switches, all on budget.

The first generation holds the uniform genes and random ones. Survivors are told again whenever
the projector has moved: an old score under an old projector is stale.
"""
# pymoo annotates nothing; what pyright reads into its defaults is wrong.
# pyright: reportArgumentType=false, reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import ElementwiseDuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from slimsearch.budget import Budget
from slimsearch.candidate import Genes, Score
from slimsearch.contracts import Strategy
from slimsearch.first_generation import first_generation

WORST = 1e30  # stands for infinity: pymoo may report a NaN or inf as its optimum


class Genetic(Strategy):
    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._problem = Problem(n_var=len(budget.genes), n_obj=1, xl=0, xu=1, vtype=int)
        self._algorithm = GA(
            pop_size=survivors,
            n_offsprings=candidates,
            sampling=np.array(first_generation(budget, candidates, np.random.default_rng(seed))),
            crossover=_BlockCrossover(),
            mutation=_LevelSwitch(budget),
            repair=_OnBudget(budget),
            eliminate_duplicates=_SameGenes(),
        )
        self._keep = survivors
        self._algorithm.setup(self._problem, seed=seed, termination=NoTermination())
        self._asked: Any = None

    def ask(self) -> list[Genes]:
        self._asked = self._algorithm.ask()  # None where crossover finds nothing new
        return [] if self._asked is None else _genes(self._asked)

    def tell(self, scores: Sequence[Score]) -> None:
        found = {score.genes: score.total for score in scores}
        for population in (self._algorithm.pop, self._asked):
            for individual in population if population is not None else ():
                total = found.get(_tuple(individual.X))
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
        return [] if pop is None else _genes(pop)


class _BlockCrossover(Crossover):
    """Each gene from either parent with equal chance; repair mends the budget."""

    def __init__(self) -> None:
        super().__init__(n_parents=2, n_offsprings=2)

    def _do(self, problem: Any, X: np.ndarray, *_: Any, random_state: Any, **__: Any) -> np.ndarray:
        swap = random_state.random(X.shape[1:]) < 0.5
        return np.where(swap, X[::-1], X)


class _LevelSwitch(Mutation):
    """One to three times: one gene goes a level up, another a level down."""

    def __init__(self, budget: Budget):
        super().__init__(prob=0.9)
        self._tops = np.array([len(gene.choices) - 1 for gene in budget.genes])

    def _do(self, problem: Any, X: np.ndarray, *_: Any, random_state: Any, **__: Any) -> np.ndarray:
        moved = X.copy()
        for row in moved:
            for _switch in range(random_state.integers(1, 4)):
                for step in (1, -1):
                    where = random_state.integers(len(row))
                    row[where] = np.clip(row[where] + step, 0, self._tops[where])
        return moved


class _OnBudget(Repair):
    def __init__(self, budget: Budget):
        super().__init__()
        self._budget = budget

    def _do(self, problem: Any, X: np.ndarray, *_: Any, random_state: Any, **__: Any) -> np.ndarray:
        return np.array([self._budget.repair(row, random_state) for row in X])


class _SameGenes(ElementwiseDuplicateElimination):
    def is_equal(self, a: Any, b: Any) -> bool:
        return bool(np.array_equal(a.X, b.X))


def _genes(population: Population) -> list[Genes]:
    return [_tuple(individual.X) for individual in population]


def _tuple(row: np.ndarray) -> Genes:
    return tuple(int(value) for value in row)
