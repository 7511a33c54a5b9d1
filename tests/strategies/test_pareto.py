"""The front that NSGA-II finds where the true one is known."""

import numpy as np
import pytest

from slimsearch.budgets.bill import Sum
from slimsearch.budgets.budget import Budget
from slimsearch.policy import Gene
from slimsearch.record.candidate import Score
from slimsearch.searching import picking
from slimsearch.strategies.pareto import Pareto

LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7)


def budget(held: bool) -> Budget:
    genes = tuple(Gene("layer_sparsity", f"blocks.{n}", LEVELS, 100) for n in range(6))
    return Budget(genes, 0.5, Sum(genes, 600), held=held)


def scored(genes, places, round_=0) -> list[Score]:
    """Loss grows with what is removed, faster where a gene matters more; bytes fall."""
    prices = np.array([1, 2, 4, 8, 16, 32])
    found = []
    for some in genes:
        removed = sum(LEVELS[i] for i in some)
        loss = float(sum(p * LEVELS[i] ** 2 for p, i in zip(prices, some, strict=True)))
        terms = {"loss": loss + round_, "bytes": 6 - removed, "third": float(some[0])}
        found.append(Score("", some, loss, {name: terms[name] for name in places}))
    return found


def play(strategy, rounds, places=("loss", "bytes"), moving=False) -> list[Score]:
    everything = {}
    for index in range(rounds):
        fresh = strategy.ask()
        told = scored(dict.fromkeys([*strategy.survivors, *fresh]), places, index * moving)
        everything |= {score.genes: score for score in told}
        strategy.tell(told)
    return list(everything.values())


def test_a_free_front_reaches_from_light_to_heavy_and_comes_near_the_true_one():
    found = picking.front(play(Pareto(budget(False), 24, 16, 0), 25))
    removed = [6 - score.terms["bytes"] for score in found]
    assert min(removed) < 2.1
    assert max(removed) > 3.9
    for score in found:  # the true front gives the cheap genes up first
        count = 6 - score.terms["bytes"]
        best = best_loss(count)
        assert score.terms["loss"] <= 1.35 * best


def best_loss(removed: float) -> float:
    """The least loss at so much removed, by dynamic programming over tenths."""
    prices, least = [1, 2, 4, 8, 16, 32], {0: 0.0}
    for price in prices:
        step = {}
        for done, loss in least.items():
            for level in LEVELS:
                key, value = done + round(level * 10), loss + price * level**2
                step[key] = min(step.get(key, np.inf), value)
        least = step
    return least[round(removed * 10)]


def test_a_held_budget_is_held():
    kept = budget(True)
    for score in play(Pareto(kept, 12, 6, 1), 6, ("loss", "third")):
        assert kept.removed(score.genes) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("places", [("loss", "bytes"), ("loss", "bytes", "third")])
def test_survivors_are_of_the_front_first(places):
    strategy = Pareto(budget(False), 16, 8, 0)
    told = play(strategy, 8, places)
    alive = strategy.survivors
    assert len(set(alive)) == 8
    by_genes = {score.genes: score for score in told}
    best = {tuple(score.terms.values()) for score in picking.front([by_genes[g] for g in alive])}
    assert {tuple(by_genes[genes].terms.values()) for genes in alive} == best


def test_told_again_under_a_moved_projector_it_replays_bit_by_bit():
    one, two = (Pareto(budget(False), 10, 6, 5) for _ in range(2))
    play(one, 6, moving=True)
    play(two, 6, moving=True)
    assert one.survivors == two.survivors
    assert one.ask() == two.ask()
