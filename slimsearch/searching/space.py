"""A space of policies over one model: genes, their budget, and the way from genes to a policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slimsearch.budgets.bill import Sum
from slimsearch.budgets.budget import Budget
from slimsearch.contracts import Family
from slimsearch.errors import PolicyError
from slimsearch.policy import SPARSITY, Body, Gene, Policy, PolicyFile, Table
from slimsearch.record.candidate import Genes
from slimsearch.routes.route import Route, together


@dataclass(frozen=True)
class Space:
    """`words` are a table's lines that hold a word: every policy of the space has them."""

    genes: tuple[Gene, ...]
    budget: Budget
    words: Mapping[str, Table] = field(default_factory=dict)

    def decode(self, genes: Genes) -> Policy:
        """The policy that these genes stand for."""
        tables = {name: dict(lines) for name, lines in self.words.items()}
        for gene, index in zip(self.genes, genes, strict=True):
            tables[gene.family][gene.key] = gene.choices[index]
        return Policy(tables)

    def values(self, genes: Genes) -> list[float]:
        """The genes' values: the point in policy space where a candidate stands."""
        return [gene.choices[i] for gene, i in zip(self.genes, genes, strict=True)]

    def levels(self, family: Family, body: Body) -> dict[str, set[float]]:
        """Every level that each matrix can be asked for."""
        wanted: dict[str, set[float]] = {matrix.name: set() for matrix in body.matrices}
        genes = [gene for gene in self.genes if gene.family == SPARSITY]
        for column in range(max((len(gene.choices) for gene in genes), default=0)):
            chosen = {g.key: g.choices[min(column, len(g.choices) - 1)] for g in genes}
            for name, level in family.edits(chosen, body).items():
                wanted[name].add(level)
        return wanted

    def parts(self, body: Body) -> list[tuple[str, ...]]:
        """The matrices of whose level each gene decides: by its own gene, else by its block's."""
        keys = {gene.key for gene in self.genes if gene.family == SPARSITY}
        owner = {m.name: m.name if m.name in keys else m.block for m in body.matrices}
        return [
            tuple(name for name, key in owner.items() if key == gene.key)
            if gene.family == SPARSITY else ()
            for gene in self.genes
        ]  # fmt: skip

    @property
    def settled(self) -> bool:
        """Whether no gene decides of a share of weights: that share is what it is."""
        return all(len(gene.choices) == 1 for gene in self.genes if gene.size)

    @property
    def single(self) -> bool:
        """Whether there is nothing to choose."""
        return all(len(gene.choices) == 1 for gene in self.genes)


def check(file: PolicyFile, families: Mapping[str, Family], ratio: float) -> None:
    """Refuses lines that no model could heed."""
    for name, family in families.items():
        for line, value in file.tables[name].items():
            known = family.words.get(line)
            try:
                if known is None:
                    family.choices(line, value, ratio)
                elif value not in known:
                    raise PolicyError(
                        f"[{name}] '{line}' is {value!r}; it can be {' or '.join(known)}."
                    )
            except PolicyError as error:
                raise PolicyError(f"{file.file}: {error}") from None


def route(policy: Policy, families: Mapping[str, Family], body: Body) -> Route:
    """How the blocks run under a policy."""
    edits = [family.edits(policy.table(name), body) for name, family in families.items()]
    return together(edits, body.blocks)


def build(
    file: PolicyFile,
    families: Mapping[str, Family],
    body: Body,
    ratio: float,
    levels: str,
) -> Space:
    """The space that a file spans over a model; `levels` replaces every range of sparsity in it."""
    genes: list[Gene] = []
    words: dict[str, Table] = {}
    for name, table in file.tables.items():
        words[name] = {key: value for key, value in table.items() if key in families[name].words}
        numbers = {key: value for key, value in table.items() if key not in words[name]}
        if levels and name == SPARSITY:
            numbers = {k: levels if isinstance(v, str) else v for k, v in numbers.items()}
        genes += families[name].genes({**words[name], **numbers}, body, ratio)
    if not genes:
        raise PolicyError(f"{file.file or file.name} names no part of this model.")
    total = sum(matrix.size for matrix in body.matrices)
    return Space(tuple(genes), Budget(tuple(genes), ratio, Sum(tuple(genes), total)), words)
