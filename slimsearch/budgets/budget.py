"""Moves genes onto the target: the share that goes of what the dense model has or spends.

What genes take is for a `bill` to say: a sum of weights, or what is no longer computed. Repair
walks one gene at a time towards the target, at random among the moves that come closer, and stops
where no single move does. It is a pure function of (genes, random state) and leaves a met target
alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from slimsearch.budgets import knapsack
from slimsearch.budgets.bill import Bill
from slimsearch.errors import PolicyError
from slimsearch.policy import Gene
from slimsearch.record.candidate import Genes

HALVINGS = 12  # of the levels between nothing and everything
TOLERANCE = 0.01  # SlimLLaVA, section 4.1: the mean ratio stays within p0 +- 0.01


@dataclass(frozen=True)
class Budget:
    """Where it is not `held`, any share that the ranges allow will do."""

    genes: tuple[Gene, ...]
    target: float
    bill: Bill
    held: bool = True

    @cached_property
    def tolerance(self) -> float:
        """Half of a step, where every step is coarse: whole blocks come no nearer."""
        return max(TOLERANCE, self.bill.step / self.bill.total / 2)

    def removed(self, genes: Genes) -> float:
        """The share of the dense model that these genes take."""
        return self.bill.removed(genes) / self.bill.total

    def reach(self) -> tuple[float, float]:
        """The least and the greatest share that any genes take."""
        return self.removed(self._end(-1)), self.removed(self._end(1))

    def check(self) -> None:
        """Refuses a target that no genes meet, and says what can be met."""
        if not self.held:
            return
        low, high = self.reach()
        if not low - self.tolerance <= self.target <= high + self.tolerance:
            raise PolicyError(
                f"Ratio {self.target:g} cannot be met: this policy's ranges remove {low:.3f} to "
                f"{high:.3f} of the {self.bill.what}. Choose a ratio in that range or widen the "
                f"ranges (--levels, or the policy file)."
            )

    def uniform(self, random: np.random.Generator) -> Genes:
        """All shares at the choice nearest to one level, the blocks running as they did."""
        low, high, level = 0.0, 1.0, self.target
        genes = self._at(level)
        for _ in range(HALVINGS):
            gap = self.target - self.removed(genes)
            if not self.held or abs(gap) <= self.tolerance:
                break
            low, high = (level, high) if gap > 0 else (low, level)
            level = (low + high) / 2
            genes = self._at(level)
        return self.repair(genes, random)

    def repair(self, genes: Sequence[int], random: np.random.Generator) -> Genes:
        """The nearest genes (in single steps) whose share is on the target."""
        if not self.held:
            return tuple(int(i) for i in genes)
        moved = self._walk(self._tidy([int(i) for i in genes]), random)
        if self._off(moved):  # a level up may take less: where kernels are slower than dense
            moved = self._walk(self._walk(moved, random, far=True), random)
        if self._off(moved):
            moved = self._walk(self._jump(moved), random)
        return tuple(self._tidy(moved))

    def switched(self, genes: Sequence[int], times: int, random: np.random.Generator) -> Genes:
        """So many level switches, put back on the target."""
        return self.repair(self.switch(genes, times, random), random)

    def switch(self, genes: Sequence[int], times: int, random: np.random.Generator) -> list[int]:
        """So many times one gene goes a level up, another one down; off the target, if need be."""
        moved = list(genes)
        for _ in range(times):
            for step in (1, -1):
                where = int(random.integers(len(moved)))
                top = len(self.genes[where].choices) - 1
                moved[where] = min(max(moved[where] + step, 0), top)
        return moved

    def cheapest(self, costs: Sequence[Sequence[float]]) -> Genes:
        """The genes of least total cost on the target; `costs` are by gene and choice."""
        found = knapsack.solve(self.bill, self.genes, costs, self.target * self.bill.total)
        return self.repair(found, np.random.default_rng(0))

    def _tidy(self, genes: list[int]) -> list[int]:
        """Genes that decide of nothing at their first choice, so that equal policies are equal."""
        idle = self.bill.idle(genes)
        return [0 if where in idle else index for where, index in enumerate(genes)]

    def _at(self, level: float) -> Genes:
        return tuple(gene.nearest(level) if gene.size else 0 for gene in self.genes)

    def _end(self, sign: int) -> Genes:
        """The genes that take the least (-1) or the most (1), found gene by gene."""
        genes = [0 if sign < 0 else len(gene.choices) - 1 for gene in self.genes]
        moved = True
        while moved:
            moved = False
            for where, gene in enumerate(self.genes):
                changes = [
                    sign * self.bill.change(genes, where, i) for i in range(len(gene.choices))
                ]
                best = int(np.argmax(changes))
                if changes[best] > 1e-9 * self.bill.total:
                    genes[where], moved = best, True
        return tuple(genes)

    def _off(self, genes: list[int]) -> bool:
        return abs(self.removed(tuple(genes)) - self.target) > self.tolerance

    def _walk(self, genes: list[int], random: np.random.Generator, far: bool = False) -> list[int]:
        """Single steps at random, each closer to the target, until there is none; `far` ones go to
        any choice of a gene."""
        moved = list(genes)
        gap = self.target * self.bill.total - self.bill.removed(tuple(moved))
        while moves := self._closer(moved, gap, far):
            where, to, change = moves[random.integers(len(moves))]
            moved[where] = to
            gap -= change
        return moved

    def _closer(self, genes: list[int], gap: float, far: bool) -> list[tuple[int, int, float]]:
        """Single steps (gene, choice, what it takes) that shrink the gap to the target."""
        moves = []
        for where, (gene, index) in enumerate(zip(self.genes, genes, strict=True)):
            for to in range(len(gene.choices)) if far else (index - 1, index + 1):
                if 0 <= to < len(gene.choices):
                    change = self.bill.change(genes, where, to)
                    if abs(gap - change) < abs(gap) - 1e-9 * self.bill.total:
                        moves.append((where, to, change))
        return moves

    def _jump(self, genes: list[int]) -> list[int]:
        """The best change of one or two genes at once, for budgets that single steps miss."""
        best, nearest = genes, abs(self.removed(tuple(genes)) - self.target)
        for a in range(len(genes)):
            for b in range(a, len(genes)):
                for i in range(len(self.genes[a].choices)):
                    for j in range(len(self.genes[b].choices)):
                        trial = list(genes)
                        trial[a], trial[b] = i, j
                        miss = abs(self.removed(tuple(trial)) - self.target)
                        if miss < nearest - 1e-12:
                            best, nearest = trial, miss
                        if nearest <= self.tolerance:
                            return best
        raise PolicyError(
            f"Ratio {self.target:g} cannot be met within {self.tolerance:.3g}: the nearest that "
            f"these levels give is off by {nearest:.3f}. Use a finer step in --levels or the "
            f"policy file."
        )
