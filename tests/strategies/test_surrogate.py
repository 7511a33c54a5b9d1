"""What the surrogate believes of genes whose costs were foretold wrongly, and what it asks for."""

import numpy as np
import pytest
from budgets import test_bill

from slimsearch.budgets.bill import Sum
from slimsearch.budgets.budget import Budget
from slimsearch.policy import Gene
from slimsearch.record.candidate import Hints, Score
from slimsearch.strategies.surrogate import SWITCHES, Surrogate

BUDGET = test_bill.build("joint").budget
OUT = 8.0  # changes of how blocks run cost so many times what was foretold


@pytest.fixture
def foretold() -> list[tuple[float, ...]]:
    """Levels cost with their square, changes of how blocks run by chance."""
    random = np.random.default_rng(5)
    return [
        tuple(float(gene.size * choice**2) / 100 for choice in gene.choices)
        if gene.size
        else tuple(np.arange(len(gene.choices)) * float(random.uniform(0.2, 2)))
        for gene in BUDGET.genes
    ]


def costs_in_truth(foretold):
    return [
        some if gene.size else tuple(OUT * cost for cost in some)
        for gene, some in zip(BUDGET.genes, foretold, strict=True)
    ]


def total(genes, costs) -> float:
    idle = BUDGET.bill.idle(genes)
    return sum(some[i] for w, (some, i) in enumerate(zip(costs, genes, strict=True))
               if w not in idle)  # fmt: skip


def test_one_kind_of_genes_may_cost_far_more_than_was_foretold(foretold):
    truth = costs_in_truth(foretold)
    least = total(BUDGET.cheapest(truth), truth)
    believed = BUDGET.cheapest(foretold)
    assert total(believed, truth) > 1.2 * least
    strategy = Surrogate(BUDGET, candidates=8, survivors=4, seed=0)
    strategy.start(Hints({"optimal": believed}, tuple(foretold)))
    asked = []
    for turn in range(4):
        asked = strategy.ask()
        strategy.tell([
            Score(f"{turn}-{place}", genes, total(genes, truth))
            for place, genes in enumerate(asked)
        ])  # fmt: skip
    assert total(asked[0], truth) < 1.05 * least
    assert total(strategy.survivors[0], truth) < 1.05 * least


def wide(count=12):
    """A space of levels alone, and costs that grow with them."""
    levels = (0.3, 0.4, 0.5, 0.6, 0.7)
    genes = tuple(Gene("f", f"blocks.{n}", levels, 100 + 50 * (n % 3)) for n in range(count))
    costs = tuple(tuple(gene.size * level**2 for level in levels) for gene in genes)
    return Budget(genes, 0.5, Sum(genes, sum(gene.size for gene in genes))), costs


def played(price, noise, turns=3):
    """A search whose scores are the foretold costs at these prices, and noise."""
    budget, costs = wide()
    random = np.random.default_rng(1)
    strategy = Surrogate(budget, candidates=16, survivors=4, seed=0)
    strategy.start(Hints({"optimal": budget.cheapest(costs)}, costs))
    for turn in range(turns):
        scores = [
            Score(
                f"{turn}-{place}", genes,
                sum(p * some[i] for p, some, i in zip(price, costs, genes, strict=True)) / 100
                + float(random.normal(0, noise)),
            )
            for place, genes in enumerate(strategy.ask())
        ]  # fmt: skip
        strategy.tell(scores)
    return strategy


def test_a_quarter_of_the_candidates_are_near_survivors():
    strategy = played(np.ones(12), 0.1)
    asked = strategy.ask()

    def apart(genes) -> int:
        return min(
            sum(a != b for a, b in zip(genes, one, strict=True)) for one in strategy.survivors
        )

    assert len(asked) == 16
    assert len(set(asked)) == 16
    assert sum(0 < apart(genes) <= 2 * SWITCHES + 2 for genes in asked[-4:]) == 4
