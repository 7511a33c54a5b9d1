"""What is taken from a model by genes: shares of weights, or what it then no longer spends.

A sum of weights is the plain case: every gene takes its own. FLOPs and milliseconds are no such
sum, since sparsity in what a skipped block would have computed takes nothing. But once it is
settled how the blocks run (their shape), they are: each matrix costs what the tokens that meet it
cost at its level. So a bill keeps a tariff for every block and shape that it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy import ndarray

from slimsearch.policy import Gene, Matrix
from slimsearch.record.candidate import Genes
from slimsearch.routes.traffic import Traffic


class Bill(Protocol):
    """Amounts are in units of which the dense model has `total`."""

    @property
    def total(self) -> float: ...

    @property
    def what(self) -> str:
        """What shares are of, for people."""
        ...

    @property
    def step(self) -> float:
        """The most that one step of a gene takes, where all of them are coarse; else 0."""
        ...

    def removed(self, genes: Sequence[int]) -> float: ...

    def change(self, genes: Sequence[int], where: int, to: int) -> float:
        """How much more is removed once one gene makes another choice."""
        ...

    def offers(self, genes: Sequence[int]) -> tuple[float, list[ndarray]]:
        """What is removed anyway, and by gene and choice, while the shape is that of `genes`."""
        ...

    def idle(self, genes: Sequence[int]) -> set[int]:
        """Genes that decide of nothing that is computed."""
        ...


class Meter(Protocol):
    """What a model spends, part by part."""

    @property
    def what(self) -> str: ...

    def matrix(self, matrix: Matrix, traffic: Traffic, levels: ndarray) -> ndarray:
        """On one matrix, at each of some levels."""
        ...

    def block(self, traffic: Traffic) -> float:
        """On the rest of a block."""
        ...

    @property
    def rest(self) -> float:
        """On what no policy changes."""
        ...


@dataclass(frozen=True)
class Sum:
    """Each gene takes a share of its own weights; `fixed` of all go whatever the genes say."""

    genes: tuple[Gene, ...]
    total: float
    fixed: float = 0.0
    what: str = "prunable weights"
    step: float = 0.0

    def removed(self, genes: Sequence[int]) -> float:
        chosen = (g.choices[i] * g.size for g, i in zip(self.genes, genes, strict=True))
        return self.fixed + sum(chosen)

    def change(self, genes: Sequence[int], where: int, to: int) -> float:
        gene = self.genes[where]
        return (gene.choices[to] - gene.choices[genes[where]]) * gene.size

    def offers(self, genes: Sequence[int]) -> tuple[float, list[ndarray]]:
        return self.fixed, [np.multiply(gene.choices, gene.size) for gene in self.genes]

    def idle(self, genes: Sequence[int]) -> set[int]:
        return set()


@dataclass(frozen=True)
class Tariff:
    """A block of one shape: what it spends anyway, and by gene and choice of its sparsity."""

    fixed: float
    columns: Mapping[int, ndarray]


class Spent:
    """By a meter, with the genes of every family; `traffics` says how blocks run under genes.

    `parts` are the matrices of whose levels each gene decides, () for a gene of the shape.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        parts: Sequence[tuple[str, ...]],
        matrices: Sequence[Matrix],
        traffics: Callable[[Genes], Sequence[Traffic]],
        dense: Sequence[Traffic],
        meter: Meter,
    ):
        self.genes, self.parts, self.what = tuple(genes), tuple(parts), meter.what
        self._works, self.meter, self.rest = traffics, meter, meter.rest
        places = {matrix: where for where, some in enumerate(parts) for matrix in some}
        self._matrices: list[list[tuple[Matrix, int | None]]] = [[] for _ in dense]
        for matrix in matrices:
            block = int(matrix.name.split(".")[1])
            self._matrices[block].append((matrix, places.get(matrix.name)))
        blocks = [_block_of(gene) for gene in genes]
        shape = [where for where, some in enumerate(parts) if not some]
        self.common = [where for where in shape if blocks[where] is None]
        self.own = [[w for w in shape if blocks[w] == block] for block in range(len(dense))]
        self._block_of = {w: b for w, b in enumerate(blocks) if b is not None}
        self._tariffs: dict[tuple[int, ...], Tariff] = {}
        self.total = self.rest + sum(
            meter.block(traffic)
            + sum(float(meter.matrix(m, traffic, DENSE)[0]) for m, _ in self._matrices[block])
            for block, traffic in enumerate(dense)
        )

    @cached_property
    def step(self) -> float:
        if any(self.parts):
            return 0.0
        none = [0] * len(self.genes)
        steps = [abs(self.change(none, where, 1)) for where, gene in enumerate(self.genes)
                 if len(gene.choices) > 1]  # fmt: skip
        return max(steps, default=0.0)

    def removed(self, genes: Sequence[int]) -> float:
        return self.total - self._spent(genes)

    def change(self, genes: Sequence[int], where: int, to: int) -> float:
        if self.parts[where]:
            column = self.tariff(self._block_of[where], genes).columns[where]
            return float(column[genes[where]] - column[to])
        moved = [*genes]
        moved[where] = to
        return self._spent(genes) - self._spent(moved)

    def offers(self, genes: Sequence[int]) -> tuple[float, list[ndarray]]:
        anyway, found = self.total - self.rest, [np.zeros(1)] * len(self.genes)
        for block in range(len(self.own)):
            tariff = self.tariff(block, genes)
            anyway -= tariff.fixed
            for where, column in tariff.columns.items():
                found[where] = column.max() - column
                anyway -= column.max()
        return float(anyway), found

    def idle(self, genes: Sequence[int]) -> set[int]:
        return {
            where
            for block in range(len(self.own))
            for where, column in self.tariff(block, genes).columns.items()
            if not column.any()
        }

    def tariff(self, block: int, genes: Sequence[int]) -> Tariff:
        """What a block costs in the shape that `genes` give it."""
        key = (block, *(genes[w] for w in self.common), *(genes[w] for w in self.own[block]))
        found = self._tariffs.get(key)
        if found is None:
            found = self._tariffs[key] = self._tariff(block, self._works(tuple(genes))[block])
        return found

    def _spent(self, genes: Sequence[int]) -> float:
        spent = self.rest
        for block in range(len(self.own)):
            tariff = self.tariff(block, genes)
            spent += tariff.fixed
            for where, column in tariff.columns.items():
                spent += column[genes[where]]
        return float(spent)

    def _tariff(self, block: int, traffic: Traffic) -> Tariff:
        fixed, columns = self.meter.block(traffic), {}
        for matrix, where in self._matrices[block]:
            if where is None:
                fixed += float(self.meter.matrix(matrix, traffic, DENSE)[0])
            else:
                costs = self.meter.matrix(matrix, traffic, np.asarray(self.genes[where].choices))
                columns[where] = columns.get(where, 0.0) + costs
        return Tariff(fixed, columns)


DENSE = np.zeros(1)


def _block_of(gene: Gene) -> int | None:
    """The block that a gene is about, None for all of them."""
    kind, _, rest = gene.key.partition(".")
    number = rest.partition(".")[0]
    return int(number) if kind == "blocks" and number.isdigit() else None
