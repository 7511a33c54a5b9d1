"""Where every search starts: allocations known by rule, or the uniform genes, then random ones."""

from collections.abc import Sequence

import numpy as np

from slimsearch.budgets.budget import Budget
from slimsearch.record.candidate import Genes


def first_generation(
    budget: Budget, count: int, random: np.random.Generator, known: Sequence[Genes] = ()
) -> list[Genes]:
    """At most `count` different genes; fewer where the space holds no more."""
    found = list(dict.fromkeys(known or [budget.uniform(random)]))[:count]
    for _ in range(20 * count):
        if len(found) == count:
            break
        drawn = random_genes(budget, random)
        if drawn not in found:
            found.append(drawn)
    return found


def random_genes(budget: Budget, random: np.random.Generator) -> Genes:
    if not budget.held:  # light pruning is as likely as heavy
        share = random.random()
        return tuple(int(random.binomial(len(gene.choices) - 1, share)) for gene in budget.genes)
    drawn = [int(random.integers(len(gene.choices))) for gene in budget.genes]
    if not all(gene.size for gene in budget.genes):  # few changes of how blocks run, or many
        changed = random.random() ** 2
        drawn = [
            index if gene.size or random.random() < changed else 0
            for gene, index in zip(budget.genes, drawn, strict=True)
        ]
    return budget.repair(drawn, random)
