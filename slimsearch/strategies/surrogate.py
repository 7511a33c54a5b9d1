"""Learns what each gene costs from the scores, and asks for what it now believes is cheapest.

The model: a total is a constant (one for each version of the projector) plus, for each gene, a
price times the cost that was predicted for its choice before the search: the store's error times
the loss's squared gradient, or what a change of how blocks run was measured to cost alone. Prices
start out equal; every round they are fitted to all scores (Bayesian ridge regression, in closed
form), believed as far as the scores themselves bear the model out: how much it explains, and how
far prices lie apart, are what makes the scores likeliest (empirical Bayes).
Candidates are the cheapest policies under prices drawn from the posterior (Thompson sampling), so
what is still uncertain is tried and what is known is not; some are survivors with a few levels
switched. Each is on budget by construction.
"""

from collections.abc import Sequence
from itertools import product
from math import ceil

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.contracts import Strategy
from slimsearch.record.candidate import Genes, Hints, Score
from slimsearch.searching.first_generation import first_generation

DOUBT = 0.2  # how far a gene's price may lie from the common one before anything is scored
KIND = 0.5  # how far those of all levels, or of all that changes how blocks run, may lie from it
# What the scores choose from: the price in common, as a share of the most that it can be; how many
# times as far as DOUBT and KIND prices lie apart; and how much of the totals' spread is not theirs.
COMMON, APART = tuple(2.0**-n for n in range(8)), (0.5, 1.0, 2.0, 4.0)
NOISE = (0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
HASTE = 0.1  # of what is not theirs in variance, that half of the calibration adds
NEAR = 0.25  # of the candidates are survivors with a few levels switched
SWITCHES = 4  # at most
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
        asked = self._cheapest(*self._posterior())[: self._count - ceil(NEAR * self._count)]
        return asked + self._around(asked)

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
        most = float(np.abs(totals).mean() / (spent.sum(1).mean() or 1.0))  # were all loss theirs
        for version in {score.projector for score in sound}:  # leaves its constant out
            group = [place for place, score in enumerate(sound) if score.projector == version]
            spent[group] -= spent[group].mean(0)
            totals[group] -= totals[group].mean()
        vague = np.array([1 + HASTE * (1 / score.share - 1) for score in sound])
        common, apart, noise = _likeliest(spent, totals, vague, self._doubt, most)
        prior = np.linalg.inv(self._doubt * (apart * common) ** 2)
        precision = prior + (spent.T / (vague * noise**2)) @ spent
        pull = prior.sum(1) * common + (spent.T / (vague * noise**2)) @ totals
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

    def _around(self, asked: Sequence[Genes]) -> list[Genes]:
        """Level switches of survivors: what the model knows nothing of is found by trying."""
        found: list[Genes] = []
        for _ in range(TRIES * self._count):
            parent = self._alive[int(self._random.integers(len(self._alive)))]
            times = int(self._random.integers(1, SWITCHES, endpoint=True))
            genes = self._budget.switched(parent, times, self._random)
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


def _likeliest(
    spent: np.ndarray, totals: np.ndarray, vague: np.ndarray, doubt: np.ndarray, most: float
) -> tuple[float, float, float]:
    """The common price, how far prices lie apart, and the noise that make the totals likeliest.

    All are centred. In the directions of the scores' own spread every total stands alone.
    """
    root = 1 / np.sqrt(vague)
    shape = (root[:, None] * spent) @ np.linalg.cholesky(doubt)
    turn, power, _ = np.linalg.svd(shape, full_matrices=False)
    power, heard, slope = power**2, turn.T @ (root * totals), turn.T @ (root * spent.sum(1))
    rest, beyond = float(root * totals @ (root * totals) - heard @ heard), len(totals) - len(power)
    spread = float(totals.std()) or 1.0

    def unlikely(common: float, apart: float, noise: float) -> float:
        each = (apart * common) ** 2 * power + noise**2
        return float(
            ((heard - common * slope) ** 2 / each + np.log(each)).sum()
            + max(rest, 0.0) / noise**2 + beyond * np.log(noise**2)
        )  # fmt: skip

    tried = product([most * c for c in COMMON], APART, [spread * n for n in NOISE])
    return min(tried, key=lambda those: unlikely(*those))
