"""Genes are moved onto the target: within bounds, met wherever it can be, and left alone there."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slimsearch.budgets.bill import Sum
from slimsearch.budgets.budget import TOLERANCE, Budget
from slimsearch.errors import PolicyError
from slimsearch.policy import Gene


@st.composite
def budgets(draw, parts: int = 8) -> Budget:
    genes = tuple(
        Gene(
            "layer_sparsity",
            f"blocks.{n}",
            tuple(sorted(draw(st.sets(st.integers(0, 20), min_size=1, max_size=5)))),
            draw(st.integers(1, 50)),
        )
        for n in range(draw(st.integers(1, parts)))
    )
    genes = tuple(Gene(g.family, g.key, tuple(c / 20 for c in g.choices), g.size) for g in genes)
    rest = draw(st.sampled_from([0, 0, 7]))
    total = sum(gene.size for gene in genes) + rest
    budget = Budget(genes, 0.5, Sum(genes, total))
    low, high = budget.reach()
    return replace(budget, target=low + draw(st.floats(0, 1)) * (high - low))


AWKWARD_GENES = tuple(
    Gene("layer_sparsity", f"blocks.{n}", choices, size)
    for n, (choices, size) in enumerate(
        [((0.0, 0.05), 1), ((0.0, 0.05, 0.1, 0.15, 0.2), 1), ((0.05, 0.35), 9),
         ((0.0, 0.2), 1), ((0.0, 0.05), 1), ((0.0, 0.05, 0.15), 22)]
    )
)  # fmt: skip
AWKWARD = Budget(  # single steps miss it by more than the tolerance, a jump meets it
    AWKWARD_GENES, 0.1057142857142857, Sum(AWKWARD_GENES, 35)
)


def genes_of(budget: Budget, data) -> tuple[int, ...]:
    return tuple(data.draw(st.integers(0, len(gene.choices) - 1)) for gene in budget.genes)


@settings(max_examples=150, deadline=None)
@given(budget=budgets(), data=st.data(), seed=st.integers(0, 99))
def test_repaired_genes_are_within_bounds_and_on_target(budget, data, seed):
    genes = genes_of(budget, data)
    try:
        repaired = budget.repair(genes, np.random.default_rng(seed))
    except PolicyError:
        assume(False)
    assert all(type(i) is int for i in repaired)
    assert all(0 <= i < len(g.choices) for i, g in zip(repaired, budget.genes, strict=True))
    assert abs(budget.removed(repaired) - budget.target) <= TOLERANCE + 1e-9


@settings(max_examples=150, deadline=None)
@given(budget=budgets(), data=st.data(), seed=st.integers(0, 99))
def test_repair_leaves_repaired_genes_alone(budget, data, seed):
    try:
        repaired = budget.repair(genes_of(budget, data), np.random.default_rng(seed))
    except PolicyError:
        assume(False)
    assert budget.repair(repaired, np.random.default_rng(seed + 1)) == repaired


@settings(max_examples=60, deadline=None)
@given(budget=budgets(parts=2), data=st.data())
def test_a_target_is_refused_only_where_no_genes_meet_it(budget, data):
    """One or two genes at once are tried, so with two genes every point is."""
    everything = product(*(range(len(gene.choices)) for gene in budget.genes))
    nearest = min(abs(budget.removed(genes) - budget.target) for genes in everything)
    assume(abs(nearest - TOLERANCE) > 1e-6)
    genes, random = genes_of(budget, data), np.random.default_rng(0)
    if nearest <= TOLERANCE:
        budget.repair(genes, random)
    else:
        with pytest.raises(PolicyError, match="cannot be met"):
            budget.repair(genes, random)


@settings(max_examples=50, deadline=None)
@given(parts=st.integers(3, 40), target=st.integers(40, 60), data=st.data())
def test_the_papers_space_is_always_met(parts, target, data):
    levels = tuple(round(target / 100 + offset / 20, 9) for offset in range(-2, 3))
    genes = tuple(Gene("layer_sparsity", f"blocks.{n}", levels, 1000) for n in range(parts))
    budget = Budget(genes, target / 100, Sum(genes, parts * 1000))
    repaired = budget.repair(genes_of(budget, data), np.random.default_rng(0))
    assert budget.removed(repaired) == pytest.approx(target / 100, abs=1e-9)


@given(budget=budgets(), data=st.data())
def test_removed_is_the_weighted_mean(budget, data):
    genes = genes_of(budget, data)
    removed = sum(g.choices[i] * g.size for g, i in zip(budget.genes, genes, strict=True))
    assert budget.removed(genes) == pytest.approx(removed / budget.bill.total)
    low, high = budget.reach()
    assert low - 1e-12 <= budget.removed(genes) <= high + 1e-12


def test_what_a_jump_gave_is_left_alone_too():
    for start in product(*(range(len(gene.choices)) for gene in AWKWARD.genes)):
        repaired = AWKWARD.repair(start, np.random.default_rng(0))
        assert AWKWARD.repair(repaired, np.random.default_rng(1)) == repaired


def test_fixed_weights_count():
    gene = Gene("layer_sparsity", "blocks.0", (0.0, 0.5, 1.0), 100)
    budget = Budget((gene,), 0.5, Sum((gene,), 200, fixed=50))
    assert budget.removed((1,)) == 0.5
    assert budget.reach() == (0.25, 0.75)
    assert budget.repair((2,), np.random.default_rng(0)) == (1,)


@pytest.mark.parametrize(("target", "fine"), [(0.4, True), (0.6, True), (0.395, True),
                                              (0.38, False), (0.62, False)])  # fmt: skip
def test_a_target_out_of_reach_is_refused_with_what_can_be_met(target, fine):
    gene = Gene("layer_sparsity", "blocks.0", (0.4, 0.5, 0.6), 100)
    budget = Budget((gene,), target, Sum((gene,), 100))
    if fine:
        budget.check()
    else:
        with pytest.raises(PolicyError, match=rf"Ratio {target:g} .* 0\.400 to 0\.600"):
            budget.check()


def test_the_random_state_decides_which_genes_move():
    genes = tuple(Gene("f", f"blocks.{n}", (0.4, 0.5, 0.6), 10) for n in range(12))
    budget = Budget(genes, 0.5, Sum(genes, 120))
    ways = {budget.repair((2,) * 12, np.random.default_rng(seed)) for seed in range(8)}
    assert len(ways) > 1
    again = {budget.repair((2,) * 12, np.random.default_rng(3)) for _ in range(3)}
    assert len(again) == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_switch_moves_a_few_genes_by_a_level_and_keeps_the_target(seed):
    genes = tuple(Gene("f", f"blocks.{n}", (0.4, 0.5, 0.6), 100) for n in range(20))
    budget = Budget(genes, 0.5, Sum(genes, 2000))
    random = np.random.default_rng(seed)
    moved = budget.switched((1,) * 20, 2, random)
    assert budget.removed(moved) == pytest.approx(0.5)
    assert all(abs(index - 1) <= 2 for index in moved)
    assert sum(index != 1 for index in moved) <= 4
