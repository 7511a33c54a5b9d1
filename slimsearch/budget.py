"""Moves genes onto the target: the share of all prunable weights that a policy removes.

A gene's value is a share of `size` weights, so the budget is a weighted mean. Repair walks one
gene at a time towards the target, at random among the moves that come closer, and stops where no
single move does. It is a pure function of (genes, random state) and leaves a met target alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimsearch.candidate import Genes
from slimsearch.errors import PolicyError
from slimsearch.policy import Gene

BINS = 2000  # of weights removed up to the target, where genes are picked by their cost
NEAR = 2  # bins that count as on the target: sizes are rounded to whole bins
TOLERANCE = 0.01  # SlimLLaVA, section 4.1: the mean ratio stays within p0 +- 0.01


@dataclass(frozen=True)
class Budget:
    """`fixed` weights of `total` go whatever the genes say (lines with a number).

    Where it is not `held`, any share that the ranges allow will do.
    """

    genes: tuple[Gene, ...]
    target: float
    total: int
    fixed: float = 0.0
    held: bool = True

    def removed(self, genes: Genes) -> float:
        """The share of all prunable weights that these genes remove."""
        chosen = (g.choices[i] * g.size for g, i in zip(self.genes, genes, strict=True))
        return (self.fixed + sum(chosen)) / self.total

    def reach(self) -> tuple[float, float]:
        """The least and the greatest share that any genes remove."""
        lowest = sum(g.choices[0] * g.size for g in self.genes)
        highest = sum(g.choices[-1] * g.size for g in self.genes)
        return (self.fixed + lowest) / self.total, (self.fixed + highest) / self.total

    def check(self) -> None:
        """Refuses a target that no genes meet, and says what can be met."""
        low, high = self.reach()
        if not self.held:
            return
        if not low - TOLERANCE <= self.target <= high + TOLERANCE:
            raise PolicyError(
                f"Ratio {self.target:g} cannot be met: this policy's ranges remove {low:.3f} to "
                f"{high:.3f} of the prunable weights. Choose a ratio in that range or widen the "
                f"ranges (--levels, or the policy file)."
            )

    def repair(self, genes: Sequence[int], random: np.random.Generator) -> Genes:
        """The nearest genes (in single steps) whose share is on the target."""
        if not self.held:
            return tuple(int(i) for i in genes)
        moved = self._walk([int(i) for i in genes], random)
        if abs(self.removed(tuple(moved)) - self.target) > TOLERANCE:
            moved = self._walk(self._jump(moved), random)
        return tuple(moved)

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
        """The genes of least total cost on the target; `costs` are by gene and choice.

        A knapsack solved by dynamic programming: `least[b]` is the least cost of removing b bins
        of weights with the genes seen so far.
        """
        unit = (self.target * self.total - self.fixed) / BINS
        bins = [np.rint(np.multiply(g.choices, g.size) / unit).astype(int) for g in self.genes]
        most = BINS + max(int(some.max()) for some in bins)
        least = np.full(most + 1, np.inf)
        least[0] = 0.0
        picked = np.zeros((len(self.genes), most + 1), dtype=np.int16)
        for row, (widths, some) in enumerate(zip(bins, costs, strict=True)):
            tried = np.full((len(widths), most + 1), np.inf)
            for choice, (width, cost) in enumerate(zip(widths, some, strict=True)):
                if width <= most:
                    tried[choice, width:] = least[: most + 1 - width] + cost
            picked[row] = tried.argmin(0)
            least = tried.min(0)
        away = np.maximum(np.abs(np.arange(most + 1) - BINS) - NEAR, 0)
        away[~np.isfinite(least)] = most
        place = int(np.lexsort((least, away))[0])  # nearest to the target, then cheapest
        genes: list[int] = []
        for row in range(len(self.genes) - 1, -1, -1):
            genes.append(int(picked[row, place]))
            place -= int(bins[row][genes[-1]])
        return self.repair(genes[::-1], np.random.default_rng(0))

    def _walk(self, genes: list[int], random: np.random.Generator) -> list[int]:
        """Single steps at random, each closer to the target, until there is none."""
        moved = list(genes)
        gap = (self.target - self.removed(tuple(moved))) * self.total
        while moves := self._closer(moved, gap):
            where, step, change = moves[random.integers(len(moves))]
            moved[where] += step
            gap -= change
        return moved

    def _closer(self, genes: list[int], gap: float) -> list[tuple[int, int, float]]:
        """Single steps (gene, step, weights) that shrink the gap to the target."""
        step = 1 if gap > 0 else -1
        moves = []
        for where, (gene, index) in enumerate(zip(self.genes, genes, strict=True)):
            if 0 <= index + step < len(gene.choices):
                change = (gene.choices[index + step] - gene.choices[index]) * gene.size
                if abs(gap - change) < abs(gap) - 1e-9 * self.total:
                    moves.append((where, step, change))
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
                        if nearest <= TOLERANCE:
                            return best
        raise PolicyError(
            f"Ratio {self.target:g} cannot be met within {TOLERANCE}: the nearest that these "
            f"levels give is off by {nearest:.3f}. Use a finer step in --levels or the policy file."
        )
