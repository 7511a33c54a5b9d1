"""Strides away from a champion: what they cost where costs are as foretold, or differ from it."""

import numpy as np
import pytest

from slimsearch.budgets.bill import Sum
from slimsearch.budgets.budget import Budget
from slimsearch.policy import Gene
from slimsearch.record.candidate import Outlook, Score
from slimsearch.strategies._strides import Strides
from slimsearch.strategies.surrogate import Surrogate

LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7)
GENES = tuple(Gene("f", f"blocks.{n}", LEVELS, 100 + 50 * (n % 3)) for n in range(12))
BUDGET = Budget(GENES, 0.5, Sum(GENES, sum(gene.size for gene in GENES)))
MIDDLE = (2,) * len(GENES)
WORTH = np.random.default_rng(3).uniform(0.2, 2.0, len(GENES))


def loss(genes) -> float:
    """Convex in every gene, and each is worth something else."""
    levels = np.array([LEVELS[index] for index in genes])
    return float((WORTH * np.array([g.size for g in GENES]) * levels**3).sum()) / 100


def outlook(genes, curved=1.0) -> Outlook:
    """The loss to second order; the second part foretold as so many times what it is."""
    along, away = [], []
    for gene, now, worth in zip(GENES, genes, WORTH, strict=True):
        here, moved = LEVELS[now], np.array(LEVELS) - LEVELS[now]
        along.append(tuple(worth * gene.size * 3 * here**2 * moved / 100))
        away.append(tuple(curved * worth * gene.size * 3 * here * moved**2 / 100))
    return Outlook(tuple(genes), tuple(along), tuple(away))


def told(strides, genes, count=8) -> list[Score]:
    scores = [Score(str(n), g, loss(g)) for n, g in enumerate(strides.propose(count, {genes}))]
    strides.learn([Score("champion", genes, loss(genes)), *scores])
    return scores


def test_strides_are_on_budget_new_and_the_first_of_them_better():
    strides = Strides(BUDGET, np.random.default_rng(0))
    strides.turn(outlook(MIDDLE))
    found = strides.propose(8, {MIDDLE})
    assert len(set(found)) == len(found) == 8
    assert MIDDLE not in found
    assert all(abs(BUDGET.removed(genes) - 0.5) <= BUDGET.tolerance for genes in found)
    assert loss(found[0]) < loss(MIDDLE)


def test_a_few_turns_lead_to_the_best_policy():
    best = BUDGET.cheapest([[w * g.size * level**3 / 100 for level in LEVELS]
                            for g, w in zip(GENES, WORTH, strict=True)])  # fmt: skip
    strides, champion = Strides(BUDGET, np.random.default_rng(0)), MIDDLE
    for _ in range(3):
        strides.turn(outlook(champion))
        scores = told(strides, champion)
        champion = min([*scores, Score("", champion, loss(champion))], key=lambda s: s.total).genes
    assert loss(champion) - loss(best) < 0.03 * (loss(MIDDLE) - loss(best))


@pytest.mark.parametrize("curved", [0.25, 1.0, 4.0])
def test_caution_is_what_strides_turn_out_to_want(curved):
    strides = Strides(BUDGET, np.random.default_rng(0))
    for _ in range(3):
        strides.turn(outlook(MIDDLE, curved))
        told(strides, MIDDLE, 16)
    assert float(np.median(strides.caution)) == pytest.approx(1 / curved, rel=0.4)


def test_a_gene_that_spoils_every_stride_is_left_alone():
    """Its changes cost ten times as much as any foretelling says."""
    strides = Strides(BUDGET, np.random.default_rng(0))
    strides.turn(outlook(MIDDLE))
    bad = max(range(len(GENES)), key=lambda g: abs(strides.propose(1, ())[0][g] - MIDDLE[g]))
    away = outlook(MIDDLE).away

    def total(genes) -> float:
        return loss(genes) + 10 * away[bad][genes[bad]]

    scores = [Score(str(n), g, total(g)) for n, g in enumerate(strides.propose(16, {MIDDLE}))]
    assert sum(score.genes[bad] != MIDDLE[bad] for score in scores) > 4
    strides.learn([Score("champion", MIDDLE, total(MIDDLE)), *scores])
    others = np.delete(strides.caution, bad)
    assert strides.caution[bad] > 3 > 2 * float(np.median(others)) > 1
    assert strides.propose(1, ())[0][bad] == MIDDLE[bad]


def test_of_nothing_told_there_are_no_strides():
    strides = Strides(BUDGET, np.random.default_rng(0))
    assert strides.propose(4, ()) == []
    strides.turn(Outlook(MIDDLE))
    assert strides.propose(4, ()) == []
    strides.learn([Score("", MIDDLE, 1.0)])
    assert (strides.caution == 1.0).all()


def test_the_surrogate_asks_for_strides_and_learns_from_them():
    strategy = Surrogate(BUDGET, 8, 4, 0)
    strategy.tell([Score(str(n), genes, loss(genes)) for n, genes in enumerate(strategy.ask())])
    champion = strategy.survivors[0]
    without = strategy.ask()
    strategy.turn(outlook(champion))
    asked = strategy.ask()
    assert len(set(asked)) == 8 == len(set(without))
    assert min(map(loss, asked)) < loss(champion)
    assert min(map(loss, asked[:4])) <= min(map(loss, without))
