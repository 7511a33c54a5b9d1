"""Every file in strategies/ against the contract of a strategy."""

from collections.abc import Iterable
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimsearch.budgets.bill import Sum
from slimsearch.budgets.budget import TOLERANCE, Budget
from slimsearch.contracts import Strategy
from slimsearch.plugins import about, find, names
from slimsearch.policy import Gene
from slimsearch.record.candidate import Genes, Score

STRATEGIES = names("strategies")
ALONE = {"uniform", "owl", "alpha", "optimal"}  # one candidate, by rule
every_strategy = pytest.mark.parametrize("name", STRATEGIES)
LEVELS = (0.4, 0.45, 0.5, 0.55, 0.6)


def budget_of(parts: int, levels: tuple[float, ...] = LEVELS, target: float = 0.5) -> Budget:
    genes = tuple(
        Gene("layer_sparsity", f"blocks.{n}", levels, 1000 + 100 * (n % 3)) for n in range(parts)
    )
    return Budget(genes, target, Sum(genes, sum(gene.size for gene in genes)))


def total(genes: Genes, seed: int = 0) -> float:
    """A made-up total that likes some genes more than others."""
    weights = np.random.default_rng(seed).normal(size=len(genes))
    return float(np.dot(weights, genes))


def scored(genes: Iterable[Genes], totals: Iterable[float]) -> list[Score]:
    return [Score("", g, float(t)) for g, t in zip(genes, totals, strict=True)]


def play(strategy: Strategy, rounds: int, score=total) -> list[list[Genes]]:
    """Rounds as the search plays them: survivors are told again with what is asked."""
    asked = []
    for _ in range(rounds):
        fresh = strategy.ask()
        asked.append(fresh)
        if not fresh:
            break
        genes = list(dict.fromkeys([*strategy.survivors, *fresh]))
        strategy.tell(scored(genes, map(score, genes)))
    return asked


def test_all_are_found():
    assert set(STRATEGIES) >= {*ALONE, "genetic", "level_switch", "random", "surrogate"}
    assert all(about("strategies", name) for name in STRATEGIES)
    assert all(issubclass(find("strategies", name), Strategy) for name in STRATEGIES)


@every_strategy
@settings(max_examples=15, deadline=None)
@given(parts=st.integers(1, 12), candidates=st.integers(1, 12), survivors=st.integers(1, 8),
       seed=st.integers(0, 1 << 40))  # fmt: skip
def test_asks_stay_in_bounds_and_on_budget(name, parts, candidates, survivors, seed):
    budget = budget_of(parts)
    strategy = find("strategies", name)(budget, candidates, survivors, seed)
    for asked in play(strategy, 4):
        assert len(asked) <= candidates
        assert len(set(asked)) == len(asked)
        for genes in asked:
            assert isinstance(genes, tuple)
            assert all(type(index) is int for index in genes)
            assert len(genes) == parts
            assert all(0 <= i < len(g.choices) for i, g in zip(genes, budget.genes, strict=True))
            assert abs(budget.removed(genes) - budget.target) <= TOLERANCE + 1e-9


@every_strategy
def test_the_first_ask_is_not_empty_and_has_the_uniform_genes(name):
    asked = find("strategies", name)(budget_of(8), 6, 3, 0).ask()
    assert (2,) * 8 in asked


@every_strategy
def test_the_seed_decides(name):
    runs = [play(find("strategies", name)(budget_of(10), 8, 4, seed), 5) for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    if name not in ALONE:
        assert runs[0] != runs[2]


@every_strategy
def test_global_random_state_plays_no_part(name):
    np.random.seed(1)
    first = play(find("strategies", name)(budget_of(10), 8, 4, 0), 4)
    np.random.seed(2)
    assert play(find("strategies", name)(budget_of(10), 8, 4, 0), 4) == first


@every_strategy
def test_told_results_replayed_give_the_same_asks(name):
    """As the search resumes: asked and told again, from what the journal holds."""
    first, told = find("strategies", name)(budget_of(10), 8, 4, 7), []
    asked = []
    for index in range(6):
        fresh = first.ask()
        if not fresh:
            break
        asked.append(fresh)
        genes = list(dict.fromkeys([*first.survivors, *fresh]))
        told.append(scored(genes, [total(g, index) for g in genes]))  # the projector moves
        first.tell(told[-1])
    again = find("strategies", name)(budget_of(10), 8, 4, 7)
    for fresh, scores in zip(asked, told, strict=True):
        assert again.ask() == fresh
        again.tell(scores)
    assert again.survivors == first.survivors


@every_strategy
def test_survivors_were_told_and_are_no_more_than_asked_for(name):
    strategy, told = find("strategies", name)(budget_of(8), 8, 3, 1), {}
    assert strategy.survivors == []
    for _ in range(4):
        fresh = strategy.ask()
        genes = list(dict.fromkeys([*strategy.survivors, *fresh]))
        told |= {g: total(g) for g in genes}
        strategy.tell(scored(genes, [told[g] for g in genes]))
        assert 0 < len(strategy.survivors) <= 3
        assert set(strategy.survivors) <= set(told)
        if not fresh:
            break


@every_strategy
def test_the_best_told_survives(name):
    strategy, told = find("strategies", name)(budget_of(8), 8, 3, 1), {}
    for _ in range(4):
        fresh = strategy.ask()
        genes = list(dict.fromkeys([*strategy.survivors, *fresh]))
        told |= {g: total(g) for g in genes}
        strategy.tell(scored(genes, [told[g] for g in genes]))
        assert min(told, key=told.get) in strategy.survivors


@every_strategy
def test_survivors_that_got_worse_are_replaced(name):
    """The projector moved: what was best is told again with a new total."""
    if name in ALONE:
        pytest.skip("it has one candidate")
    strategy = find("strategies", name)(budget_of(8), 8, 2, 1)
    fresh = strategy.ask()
    strategy.tell(scored(fresh, range(len(fresh))))
    assert fresh[0] in strategy.survivors
    more = strategy.ask()
    old = strategy.survivors
    strategy.tell(scored([*old, *more], [1000.0] * len(old) + list(range(len(more)))))
    assert set(strategy.survivors) == set(more[:2])


@every_strategy
@pytest.mark.parametrize("failed", [1, 5])
def test_failed_candidates_do_not_survive_where_enough_are_sound(name, failed):
    if name in ALONE:
        pytest.skip("it has one candidate")
    strategy = find("strategies", name)(budget_of(8), 8, 3, 1)
    fresh = strategy.ask()
    totals = [inf] * failed + [float(n) for n in range(len(fresh) - failed)]
    strategy.tell(scored(fresh, totals))
    assert not set(strategy.survivors) & set(fresh[:failed])
    assert fresh[failed] in strategy.survivors


@every_strategy
def test_a_round_of_failures_does_not_break_it(name):
    strategy = find("strategies", name)(budget_of(8), 6, 3, 1)
    play(strategy, 3, lambda genes: inf)


@every_strategy
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.timeout(30)
def test_a_space_smaller_than_a_round_ends_or_goes_on(name, parts):
    """One part has one point on budget, two have five: fewer than the 16 that are wanted."""
    asked = play(find("strategies", name)(budget_of(parts), 16, 6, 0), 12)
    seen = [genes for fresh in asked for genes in fresh]
    assert seen
    assert len(set(seen)) <= 5 ** (parts - 1)


@every_strategy
def test_a_search_that_learns_ends_no_worse_than_it_began(name):
    strategy = find("strategies", name)(budget_of(12), 16, 6, 0)
    asked = play(strategy, 12)
    first, best = min(map(total, asked[0])), min(total(g) for fresh in asked for g in fresh)
    assert best <= first
    if name in ("genetic", "level_switch", "surrogate"):
        drawn = play(find("strategies", "random")(budget_of(12), 16, 6, 0), 12)
        assert best < min(total(g) for fresh in drawn for g in fresh)
