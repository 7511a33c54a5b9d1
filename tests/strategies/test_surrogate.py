"""What the surrogate believes of genes whose costs were foretold out of scale."""

import numpy as np
import pytest
from budgets import test_bill

from slimsearch.record.candidate import Hints, Score
from slimsearch.strategies.surrogate import Surrogate

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
