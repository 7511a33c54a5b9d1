"""Allocations by rule, each against its definition written plainly, and the cheapest by force."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from slimsearch.api import assembly, inputs
from slimsearch.budgets.bill import Sum
from slimsearch.budgets.budget import TOLERANCE, Budget
from slimsearch.errors import SettingsError
from slimsearch.policy import Gene
from slimsearch.record.run import create
from slimsearch.searching import allocation
from slimsearch.searching.allocation import Ground
from slimsearch.searching.loop import fill_store
from slimsearch.searching.watch import Watch

RULES = ("uniform", "owl", "alpha", "optimal", "optimal*10")


@pytest.fixture
def ground(small, tmp_path) -> Ground:
    bench = assembly.load(inputs.gather(small), Watch())
    with create(tmp_path / "run", small, {}) as run:
        fill_store(bench.loop, run, Watch())
    return Ground(bench.loop.space, bench.loop.evaluator, stored=True)


def test_every_rule_is_on_budget_and_in_bounds(ground):
    found = allocation.gather(RULES, ground)
    budget = ground.space.budget
    assert list(found.allocations) == list(RULES)
    for genes in found.allocations.values():
        assert abs(budget.removed(genes) - budget.target) <= TOLERANCE
        assert all(0 <= i < len(g.choices) for i, g in zip(genes, budget.genes, strict=True))
    assert all(type(i) is int for genes in found.allocations.values() for i in genes)


def test_costs_are_error_times_squared_gradient(ground):
    costs = allocation.gather(("optimal",), ground).costs
    gene = ground.space.genes[3]
    (matrix,) = ground.parts[3]
    power = ground.seen.texts[matrix] + 10 * ground.seen.pairs[matrix]
    for level, cost in zip(gene.choices, costs[3], strict=True):
        assert cost == pytest.approx(power * ground.evaluator.store.error(matrix, level))
    assert all(list(some) == sorted(some) for some in costs)  # more sparsity, more cost


def test_optimal_is_predicted_to_cost_no_more_than_any_other_rule(ground):
    found = allocation.gather(RULES, ground)

    def cost(genes) -> float:
        return sum(some[i] for some, i in zip(found.costs, genes, strict=True))

    least = cost(found.allocations["optimal"])
    assert all(least <= cost(genes) * 1.02 for genes in found.allocations.values())


def test_without_a_store_a_search_begins_as_published(ground):
    bare = Ground(ground.space, ground.evaluator, stored=False)
    assert list(allocation.gather(("uniform", "owl", "optimal"), bare).allocations) == ["uniform"]
    assert list(allocation.gather(("owl",), bare).allocations) == ["owl"]
    with pytest.raises(SettingsError, match="Leave out --exact"):
        allocation.gather(("optimal",), bare)


def test_owl_takes_less_from_a_block_with_outliers(ground):
    ground.evaluator.restore()
    for role in ("q", "gate"):
        ground.evaluator.store.dense(f"blocks.1.{role}")[0, :] *= 200  # a few weights far out
    (genes,) = allocation.gather(("owl",), ground).allocations.values()
    values = dict(zip([g.key for g in ground.space.genes], ground.space.values(genes), strict=True))
    mean = [np.mean([v for k, v in values.items() if k.startswith(f"blocks.{n}.")]) for n in (0, 1)]
    assert mean[1] < mean[0]


def test_what_asks_for_no_costs_asks_for_no_gradients(ground, monkeypatch):
    """And sees the same inputs."""
    known = ground.seen.inputs
    monkeypatch.setattr(torch.Tensor, "backward", lambda *_: pytest.fail("a backward pass"))
    bare = replace(ground, priced=False)
    assert all(torch.equal(bare.seen.inputs[name], norms) for name, norms in known.items())
    allocation.gather(("owl", "alpha"), ground)
    with pytest.raises(pytest.fail.Exception):
        allocation.gather(("owl", "optimal"), ground)


def test_hill_tells_heavy_tails_from_light_ones():
    torch.manual_seed(0)
    light = torch.randn(64, 128)
    rank_one = light + 30 * torch.outer(torch.randn(64), torch.randn(128)) / 10
    values = [allocation._hill(w) for w in (light, rank_one)]
    powers = torch.linalg.eigvalsh((light @ light.T).double())
    upper = powers[32:]
    assert values[0] == pytest.approx(1 + 32 / float((upper / upper[0]).log().sum()), rel=1e-3)
    assert values[1] < values[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_cheapest_genes_are_the_best_of_all_on_target(seed):
    """Brute force, with costs that need not be convex."""
    random = np.random.default_rng(seed)
    genes = tuple(Gene("f", f"blocks.{n}", (0.3, 0.5, 0.7), 100 + 50 * (n % 2)) for n in range(6))
    budget = Budget(genes, 0.5, Sum(genes, sum(gene.size for gene in genes)))
    costs = [np.sort(random.random(3)) ** 2 for _ in genes]

    def cost(picked) -> float:
        return sum(float(some[i]) for some, i in zip(costs, picked, strict=True))

    on_target = [p for p in product(range(3), repeat=6) if abs(budget.removed(p) - 0.5) < 1e-9]
    assert cost(budget.cheapest(costs)) == pytest.approx(min(map(cost, on_target)))
