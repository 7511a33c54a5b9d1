"""What genes cost, learnt from scores: for where no gradient says it.

A total is taken to be a constant (one for each version of the projector) plus, for each gene, a
price times the cost that was predicted for its choice before the search: the store's error times
the loss's squared gradient, or what a change of how blocks run was measured to cost alone. Prices
start out equal; they are fitted to all scores (Bayesian ridge regression, in closed form), believed
as far as the scores themselves bear the model out: how much it explains, and how far prices lie
apart, are what makes the scores likeliest (empirical Bayes).
Candidates are the cheapest policies under prices drawn from the posterior (Thompson sampling), so
what is still uncertain is tried and what is known is not.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import product

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.record.candidate import Genes, Score

DOUBT = 0.2  # how far a gene's price may lie from the common one before anything is scored
KIND = 0.5  # how far those of all levels, or of all that changes how blocks run, may lie from it
# What the scores choose from: the price in common, as a share of the most that it can be; how many
# times as far as DOUBT and KIND prices lie apart; and how much of the totals' spread is not theirs.
COMMON, APART = tuple(2.0**-n for n in range(8)), (0.5, 1.0, 2.0, 4.0)
NOISE = (0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
HASTE = 0.1  # of what is not theirs in variance, that half of the calibration adds
LEAST = 0.05  # no price falls below this share of the common one
TRIES = 20  # draws for each candidate before the posterior is taken to agree with itself


class Prices:
    def __init__(self, budget: Budget, random: np.random.Generator):
        self._budget, self._random = budget, random
        self._doubt = _doubt(budget)
        self.start(())

    def start(self, costs: Sequence[Sequence[float]]) -> None:
        """`costs` are what each gene's choices were predicted to cost, where that is known."""
        predicted = [np.asarray(some) for some in costs] or _plain_costs(self._budget)
        whole = sum(float(some.mean()) for some in predicted) or 1.0
        self._costs = [some / whole for some in predicted]

    def propose(
        self, count: int, scores: Mapping[Genes, Score], known: Collection[Genes]
    ) -> list[Genes]:
        """So many new policies that are cheapest under drawn prices, the mean ones first."""
        if not count:
            return []
        mean, spread = self._posterior([score for score in scores.values() if score.ok])
        found: list[Genes] = []
        for index in range(TRIES * count):
            if len(found) == count:
                break
            drawn = mean + spread @ self._random.standard_normal(len(mean)) * bool(index)
            prices = np.maximum(drawn, LEAST)
            genes = self._budget.cheapest(
                [price * costs for price, costs in zip(prices, self._costs, strict=True)]
            )
            if genes not in scores and genes not in found and genes not in known:
                found.append(genes)
        return found

    def _posterior(self, sound: Sequence[Score]) -> tuple[np.ndarray, np.ndarray]:
        """Mean prices by these scores, and a factor that turns standard normal draws into their
        spread."""
        if not sound:
            return np.ones(len(self._costs)), np.linalg.cholesky(self._doubt)
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
