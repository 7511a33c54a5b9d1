"""What is learnt of prices from scores that they explain, and from such as they do not."""

from itertools import product

import numpy as np
import pytest

from slimsearch.budgets.bill import Sum
from slimsearch.budgets.budget import Budget
from slimsearch.policy import Gene
from slimsearch.record.candidate import Score
from slimsearch.strategies import _prices
from slimsearch.strategies._prices import Prices

LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7)
GENES = tuple(Gene("f", f"blocks.{n}", LEVELS, 100 + 50 * (n % 3)) for n in range(12))
BUDGET = Budget(GENES, 0.5, Sum(GENES, sum(gene.size for gene in GENES)))
COSTS = tuple(tuple(gene.size * level**2 for level in LEVELS) for gene in GENES)


def learnt(price, noise, turns=3) -> np.ndarray:
    """Mean prices after rounds whose scores are the foretold costs at `price`, and noise."""
    random = np.random.default_rng(1)
    prices, scores = Prices(BUDGET, np.random.default_rng(0)), {}
    prices.start(COSTS)
    for turn in range(turns):
        for genes in prices.propose(16, scores, ()):
            total = sum(p * some[i] for p, some, i in zip(price, COSTS, genes, strict=True)) / 100
            scores[genes] = Score(f"{turn}", genes, total + float(random.normal(0, noise)))
    return prices._posterior(list(scores.values()))[0]


def test_scores_that_the_model_does_not_explain_leave_prices_as_they_were():
    even = np.ones(12)
    told, noisy = learnt(even, 0.0), learnt(0 * even, 1.0)
    assert np.allclose(told, 1, atol=0.05)
    assert np.allclose(noisy, 1, atol=0.5)


def test_prices_far_from_what_was_foretold_are_learnt():
    price = np.where(np.arange(12) < 3, 4.0, 1.0)
    mean = learnt(price, 0.01, turns=5)
    assert mean[:3].min() > 1.5 * mean[3:].max()


@pytest.mark.parametrize("seed", range(3))
def test_what_makes_scores_likeliest_is_what_their_density_says(seed):
    """Against the density of a normal distribution, written out."""
    random = np.random.default_rng(seed)
    spent = random.normal(0, 1, (9, 5))
    spent -= spent.mean(0)
    doubt = np.eye(5) * 0.04 + 0.01
    vague = random.uniform(1, 2, 9)
    totals = 3 * spent.sum(1) + spent @ random.normal(0, 1, 5) + random.normal(0, 0.5, 9)
    totals -= totals.mean()
    found = _prices._likeliest(spent, totals, vague, doubt, 8.0)

    def density(common, apart, noise) -> float:
        spread = spent @ doubt @ spent.T * (common * apart) ** 2 + np.diag(vague) * noise**2
        left = totals - common * spent.sum(1)
        return float(-left @ np.linalg.solve(spread, left) - np.linalg.slogdet(spread)[1])

    tried = product(
        [8.0 * c for c in _prices.COMMON], _prices.APART,
        [totals.std() * n for n in _prices.NOISE],
    )  # fmt: skip
    assert found == max(tried, key=lambda those: density(*those))
