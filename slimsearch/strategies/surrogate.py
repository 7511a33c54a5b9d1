"""Learns what each gene costs from the scores, and asks for what it now believes is cheapest.

The model: a total is a constant (one for each version of the projector) plus, for each gene, a
price times the cost that was predicted for its choice before the search: the store's error times
the loss's squared gradient, or what a change of how blocks run was measured to cost alone. Prices
start out equal; every round they are fitted to all scores (Bayesian ridge regression, in closed
form).
Candidates are the cheapest policies under prices drawn from the posterior (Thompson sampling), so
what is still uncertain is tried and what is known is not. Each is on budget by construction.
"""

from collections.abc import Sequence

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.contracts import Strategy
from slimsearch.record.candidate import Genes, Hints, Score
from slimsearch.searching.first_generation import first_generation

DOUBT = 0.2  # how far a gene's price may lie from the common one before anything is scored
KIND = 0.5  # how far those of all levels, or of all that changes how blocks run, may lie from it
NOISE = 0.03  # of the totals' spread that the model does not explain
HASTE = 0.05  # of it that half of the calibration leaves open
LEAST = 0.05  # no price falls below this share of the common one
TRIES = 20  # draws for each candidate before the posterior is taken to agree with itself


class Surrogate(Strategy):
    allocations = ("uniform", "owl", "optimal", "optimal*3", "optimal*10", "plain", "plain*3")

    def __init__(self, budget: Budget, candidates: int, survivors: int, seed: int):
        self._budget, self._count, self._keep = budget, candidates, survivors
        self._random = np.random.default_rng(seed)
        self._scores: dict[Genes, Score] = {}
        self._alive: list[Genes] = []
        self._doubt = _doubt(budget)
        self.start(Hints())

    def start(self, hints: Hints) -> None:
        self._known = list(hints.allocations.values())
        costs = hints.costs or _plain_costs(self._budget)
        whole = sum(float(np.mean(some)) for some in costs) or 1.0
        self._costs = [np.asarray(some) / whole for some in costs]

    def ask(self) -> list[Genes]:
        if not self._scores:
            return self._first()
        asked = self._cheapest(*self._posterior())
        if len(asked) < self._count:  # the posterior has narrowed: look around the best
            asked += self._around(self._alive[0], asked)
        return asked

    def tell(self, scores: Sequence[Score]) -> None:
        self._scores |= {score.genes: score for score in scores}
        pool = dict.fromkeys([*self._alive, *(score.genes for score in scores)])
        self._alive = sorted(pool, key=lambda genes: self._scores[genes].total)[: self._keep]

    @property
    def survivors(self) -> list[Genes]:
        return list(self._alive)

    def _first(self) -> list[Genes]:
        """What is known by rule, and what would be cheapest if prices were a little different."""
        found = first_generation(self._budget, max(len(self._known), 1), self._random, self._known)
        found += self._cheapest(*self._prior(), found)
        found += first_generation(self._budget, self._count + 1, self._random)
        return list(dict.fromkeys(found))[: self._count]

    def _prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean prices, and a factor that turns standard normal draws into their spread."""
        return np.ones(len(self._costs)), np.linalg.cholesky(self._doubt)

    def _posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """The same, by all scores."""
        sound = [score for score in self._scores.values() if score.ok]
        if not sound:
            return self._prior()
        spent = np.array([self._spent(score.genes) for score in sound])
        totals = np.array([score.total for score in sound])
        for version in {score.projector for score in sound}:  # leaves its constant out
            group = [place for place, score in enumerate(sound) if score.projector == version]
            spent[group] -= spent[group].mean(0)
            totals[group] -= totals[group].mean()
        common = _slope(spent.sum(1), totals)
        open_ = np.array([NOISE**2 + HASTE**2 * (1 / score.share - 1) for score in sound])
        noise = np.maximum(open_ * totals.var(), (1e-9 * common) ** 2)
        prior = np.linalg.inv(self._doubt * common**2)
        precision = prior + (spent.T / noise) @ spent
        pull = prior.sum(1) * common + (spent.T / noise) @ totals
        mean = np.linalg.solve(precision, pull)
        spread = np.linalg.inv(np.linalg.cholesky(precision)).T
        return mean / common, spread / common

    def _spent(self, genes: Genes) -> list[float]:
        """The predicted cost of each gene's choice; nothing where it decides of nothing."""
        idle = self._budget.bill.idle(genes)
        return [
            0.0 if where in idle else float(costs[index])
            for where, (costs, index) in enumerate(zip(self._costs, genes, strict=True))
        ]

    def _cheapest(
        self, mean: np.ndarray, spread: np.ndarray, known: Sequence[Genes] = ()
    ) -> list[Genes]:
        """New policies that are cheapest under drawn prices, the mean ones first."""
        found: list[Genes] = []
        for index in range(TRIES * self._count):
            drawn = mean + spread @ self._random.standard_normal(len(mean)) * bool(index)
            prices = np.maximum(drawn, LEAST)
            genes = self._budget.cheapest(
                [price * costs for price, costs in zip(prices, self._costs, strict=True)]
            )
            if genes not in self._scores and genes not in found and genes not in known:
                found.append(genes)
            if len(found) == self._count:
                break
        return found

    def _around(self, best: Genes, asked: Sequence[Genes]) -> list[Genes]:
        """Level switches of the best, where prices propose nothing new."""
        found: list[Genes] = []
        for _ in range(TRIES * self._count):
            genes = self._budget.switched(best, 1, self._random)
            if genes not in self._scores and genes not in asked and genes not in found:
                found.append(genes)
            if len(found) == self._count - len(asked):
                break
        return found


def _doubt(budget: Budget) -> np.ndarray:
    """How prices vary before anything is scored: each alone, and with all others of its kind.

    What levels cost is predicted from errors, what shapes cost is measured: the two may be out of
    scale.
    """
    levels = np.array([bool(gene.size) for gene in budget.genes])
    alone = np.eye(len(levels)) * DOUBT**2
    if levels.all() or not levels.any():
        return alone
    return alone + KIND**2 * (levels[:, None] == levels)


def _plain_costs(budget: Budget) -> list[np.ndarray]:
    """Where nothing is predicted: a cost that grows with the square of what goes."""
    none = [0] * len(budget.genes)

    def taken(where: int, to: int) -> float:
        return max(budget.bill.change(none, where, to), 0.0)

    return [
        gene.size * np.square(gene.choices)
        if gene.size
        else np.array([taken(where, to) for to in range(len(gene.choices))])
        for where, gene in enumerate(budget.genes)
    ]


def _slope(spent: np.ndarray, totals: np.ndarray) -> float:
    """The price that all genes would have in common; positive. Both are centred."""
    power = float(spent @ spent)
    found = float(spent @ totals) / power if power > 0 else 0.0
    return found if found > 0 else 1.0
