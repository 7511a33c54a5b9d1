"""Allocations by rule, each against its definition written plainly, and the cheapest by force."""

from itertools import product

import numpy as np
import pytest
import torch

from slimsearch.api import assembly, inputs
from slimsearch.budgets.bill import Sum
from slimsearch.budgets.budget import TOLERANCE, Budget
from slimsearch.errors import SettingsError, SolverError
from slimsearch.policy import Gene
from slimsearch.record.run import create
from slimsearch.searching import allocation, sensitivity
from slimsearch.searching.allocation import Ground
from slimsearch.searching.stock import fill_store
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


def risen(ground, genes) -> list[float]:
    """By how much a policy raises the losses of text and of answers, on what costs are seen on;
    a hundredth where it does not, as with models that have learnt nothing."""
    evaluator, some = ground.evaluator, ground.evaluator.calibrated.part(allocation.SHARE)
    found = []
    for policy in (None, ground.space.decode(genes)):
        if policy is None:
            evaluator.restore()
        else:
            evaluator.put_on(policy)
        found.append([evaluator.vlm.mean_loss(batches) for batches in (some.texts, some.pairs)])
    evaluator.restore()
    return [max(after - before, 0.01 * before) for before, after in zip(*found, strict=True)]


def test_costs_are_errors_times_squared_gradients_of_the_uniform_policy_to_scale(ground):
    costs = allocation.gather(("optimal",), ground).costs
    assert all(list(some) == sorted(some) for some in costs)  # more sparsity, more cost
    uniform = ground.space.budget.uniform(np.random.default_rng(0))
    evaluator, some = ground.evaluator, ground.evaluator.calibrated.part(allocation.SHARE)
    evaluator.put_on(ground.space.decode(uniform))
    slopes = [sensitivity.slope(evaluator.vlm, batches) for batches in (some.texts, some.pairs)]
    evaluator.restore()

    def error(matrix, level) -> float:
        return evaluator.store.error(matrix, level)

    known = list(zip(ground.space.genes, uniform, ground.parts, strict=True))
    scales = []
    for slope, rise in zip(slopes, risen(ground, uniform), strict=True):
        foretold = sum(
            slope.squares[m] * error(m, g.choices[i]) for g, i, part in known for m in part
        )
        scales.append(rise / foretold)
    for place in (3, 8):
        gene, (matrix,) = ground.space.genes[place], ground.parts[place]
        power = scales[0] * slopes[0].squares[matrix] + 10 * scales[1] * slopes[1].squares[matrix]
        for level, cost in zip(gene.choices, costs[place], strict=True):
            assert cost == pytest.approx(power * error(matrix, level), rel=1e-4)


def test_the_uniform_policy_is_foretold_to_cost_what_it_was_measured_to_cost(ground):
    found = allocation.gather(("uniform", "optimal"), ground)
    genes = found.allocations["uniform"]
    text, answers = risen(ground, genes)
    foretold = sum(some[i] for some, i in zip(found.costs, genes, strict=True))
    assert foretold == pytest.approx(text + 10 * answers, rel=1e-4)


def test_where_the_uniform_policy_cannot_be_had_gradients_are_the_dense_models(ground, monkeypatch):
    def cannot(policy):
        raise SolverError("no damping helps")

    dense = [sensitivity.slope(ground.evaluator.vlm, ground._some.texts)]
    monkeypatch.setattr(ground.evaluator, "put_on", cannot)
    assert ground.steepness[0] == pytest.approx(dense[0].squares)


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
    monkeypatch.setattr(torch.Tensor, "backward", lambda *_: pytest.fail("a backward pass"))
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
