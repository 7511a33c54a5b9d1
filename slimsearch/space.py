"""A space of policies over one model: genes, their budget, and the way from genes to a policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimsearch.budget import Budget
from slimsearch.candidate import Genes
from slimsearch.contracts import Family
from slimsearch.errors import PolicyError
from slimsearch.policy import Gene, Matrix, Policy, PolicyFile


@dataclass(frozen=True)
class Space:
    genes: tuple[Gene, ...]
    budget: Budget

    def decode(self, genes: Genes) -> Policy:
        """The policy that these genes stand for."""
        tables: dict[str, dict[str, float]] = {}
        for gene, index in zip(self.genes, genes, strict=True):
            tables.setdefault(gene.family, {})[gene.key] = gene.choices[index]
        return Policy(tables)

    def values(self, genes: Genes) -> list[float]:
        """The genes' values: the point in policy space where a candidate stands."""
        return [gene.choices[i] for gene, i in zip(self.genes, genes, strict=True)]

    def levels(self, family: Family, matrices: Sequence[Matrix]) -> dict[str, set[float]]:
        """Every level that each matrix can be asked for."""
        wanted: dict[str, set[float]] = {matrix.name: set() for matrix in matrices}
        for column in range(max(len(gene.choices) for gene in self.genes)):
            chosen = {g.key: g.choices[min(column, len(g.choices) - 1)] for g in self.genes}
            for name, level in family.edits(chosen, matrices).items():
                wanted[name].add(level)
        return wanted

    def parts(self, matrices: Sequence[Matrix]) -> list[tuple[str, ...]]:
        """The matrices that each gene decides over: a matrix's own gene, else its block's."""
        keys = {gene.key for gene in self.genes}
        owner = {m.name: m.name if m.name in keys else m.block for m in matrices}
        return [tuple(name for name, key in owner.items() if key == gene.key)
                for gene in self.genes]  # fmt: skip

    @property
    def single(self) -> bool:
        """Whether there is nothing to choose."""
        return all(len(gene.choices) == 1 for gene in self.genes)


def build(
    file: PolicyFile,
    families: Mapping[str, Family],
    matrices: Sequence[Matrix],
    ratio: float,
    levels: str,
) -> Space:
    """The space that a file spans over a model; `levels` replaces every range in it."""
    genes: list[Gene] = []
    for name, table in file.tables.items():
        ranges = {
            key: levels if levels and isinstance(value, str) else value
            for key, value in table.items()
        }
        genes += families[name].genes(ranges, matrices, ratio)
    if not genes:
        raise PolicyError(f"{file.file or file.name} names no part of this model.")
    total = sum(matrix.size for matrix in matrices)
    return Space(tuple(genes), Budget(tuple(genes), ratio, total))
