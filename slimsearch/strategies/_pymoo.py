"""What the genetic strategies tell pymoo: how genes are crossed, changed and kept on budget."""
# pymoo annotates nothing; what pyright reads into its defaults is wrong.
# pyright: reportArgumentType=false, reportIncompatibleMethodOverride=false

from collections.abc import Callable
from typing import Any

import numpy as np
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import ElementwiseDuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.repair import Repair

from slimsearch.budgets.budget import Budget
from slimsearch.record.candidate import Genes, Hints
from slimsearch.searching.first_generation import first_generation

WORST = 1e30  # stands for infinity: pymoo may report a NaN or inf as its optimum


def breeding(
    algorithm: Callable[..., Any],
    budget: Budget,
    candidates: int,
    survivors: int,
    seed: int,
    hints: Hints,
) -> Any:
    """One of pymoo's algorithms over genes: what is known by rule first, then random ones."""
    random, known = np.random.default_rng(seed), list(hints.allocations.values())
    return algorithm(
        pop_size=survivors,
        n_offsprings=candidates,
        sampling=np.array(first_generation(budget, candidates, random, known)),
        crossover=BlockCrossover(),
        mutation=LevelSwitch(budget),
        repair=OnBudget(budget),
        eliminate_duplicates=SameGenes(),
    )


class BlockCrossover(Crossover):
    """Each gene from either parent with equal chance; repair mends the budget."""

    def __init__(self) -> None:
        super().__init__(n_parents=2, n_offsprings=2)

    def _do(self, problem: Any, X: np.ndarray, *_: Any, random_state: Any, **__: Any) -> np.ndarray:
        swap = random_state.random(X.shape[1:]) < 0.5
        return np.where(swap, X[::-1], X)


class LevelSwitch(Mutation):
    """One to three times: one gene goes a level up, another a level down.

    Where no budget is held, every other time some genes all go the same way instead.
    """

    def __init__(self, budget: Budget):
        super().__init__(prob=0.9)
        self._budget = budget
        self._tops = np.array([len(gene.choices) - 1 for gene in budget.genes])

    def _do(self, problem: Any, X: np.ndarray, *_: Any, random_state: Any, **__: Any) -> np.ndarray:
        moved = X.copy()
        for row in moved:
            if not self._budget.held and random_state.random() < 0.5:
                some = random_state.random(len(row)) < random_state.random()
                row[some] += random_state.choice([-1, 1])
                np.clip(row, 0, self._tops, out=row)
            else:
                row[:] = self._budget.switch(row, random_state.integers(1, 4), random_state)
        return moved


class OnBudget(Repair):
    def __init__(self, budget: Budget):
        super().__init__()
        self._budget = budget

    def _do(self, problem: Any, X: np.ndarray, *_: Any, random_state: Any, **__: Any) -> np.ndarray:
        return np.array([self._budget.repair(row, random_state) for row in X])


class SameGenes(ElementwiseDuplicateElimination):
    def is_equal(self, a: Any, b: Any) -> bool:
        return bool(np.array_equal(a.X, b.X))


def genes_of_all(population: Population) -> list[Genes]:
    return [genes_of(individual.X) for individual in population]


def genes_of(row: np.ndarray) -> Genes:
    return tuple(int(value) for value in row)
