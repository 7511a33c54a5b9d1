"""From genes to a policy and back to what each matrix is asked for."""

import pytest

from slimsearch.errors import PolicyError
from slimsearch.families.layer_sparsity import LayerSparsity
from slimsearch.policy import Body, Matrix, PolicyFile
from slimsearch.searching.space import build

MATRICES = tuple(
    Matrix(f"blocks.{block}.{role}", 4, columns)
    for block in range(3)
    for role, columns in (("q", 4), ("down", 12))
)
BODY = Body(MATRICES)


def space_of(ranges, ratio: float = 0.5, levels: str = ""):
    families = {"layer_sparsity": LayerSparsity()}
    return build(PolicyFile("p", "", {"layer_sparsity": ranges}), families, BODY, ratio, levels)


def test_one_gene_for_each_block():
    found = space_of({"blocks.*": "-0.1..+0.1 by 0.1"})
    assert [gene.key for gene in found.genes] == ["blocks.0", "blocks.1", "blocks.2"]
    assert [gene.size for gene in found.genes] == [64, 64, 64]
    assert found.genes[0].choices == (0.4, 0.5, 0.6)
    assert found.budget.bill.total == 192
    assert not found.single


def test_one_gene_for_each_matrix():
    found = space_of({"blocks.*.*": "-0.1..+0.1 by 0.1"})
    assert [gene.key for gene in found.genes] == [matrix.name for matrix in MATRICES]
    assert [gene.size for gene in found.genes] == [16, 48] * 3


def test_genes_become_a_policy():
    found = space_of({"blocks.*": "-0.1..+0.1 by 0.1"})
    assert found.decode((0, 2, 1)).tables == {
        "layer_sparsity": {"blocks.0": 0.4, "blocks.1": 0.6, "blocks.2": 0.5}}  # fmt: skip
    assert found.values((0, 2, 1)) == [0.4, 0.6, 0.5]
    with pytest.raises(ValueError, match="zip"):
        found.decode((0, 2))


def test_levels_replace_every_range_and_no_number():
    found = space_of({"blocks.*": "-0.1..+0.1", "blocks.1": 0.3}, levels="0.2,0.8")
    assert [gene.choices for gene in found.genes] == [(0.2, 0.8), (0.3,), (0.2, 0.8)]


def test_a_single_point():
    assert space_of({"blocks.*": "+0.00"}).single
    assert space_of({"blocks.*": 0.5}).single


@pytest.mark.parametrize(
    "ranges",
    [
        {"blocks.*": "-0.1..+0.1 by 0.1"},
        {"blocks.*": "0.1,0.5", "blocks.1": "0.2,0.3,0.4,0.9"},
        {"blocks.*": "0.1,0.5,0.7", "blocks.*.down": "0.2,0.6"},
        {"blocks.*": "0.1,0.5,0.7", "blocks.*.q": "0.2,0.6"},
    ],
)
def test_levels_are_all_that_any_genes_ask_for(ranges):
    """Held against every point of the space."""
    from itertools import product

    found, family = space_of(ranges), LayerSparsity()
    wanted = {matrix.name: set() for matrix in MATRICES}
    for genes in product(*(range(len(gene.choices)) for gene in found.genes)):
        for name, level in family.edits(found.decode(genes).tables["layer_sparsity"], BODY).items():
            wanted[name].add(level)
    assert found.levels(family, BODY) == wanted


def test_parts_that_no_line_names_stay_dense():
    found = space_of({"blocks.1": "0.4,0.6"}, ratio=0.2)
    assert found.budget.reach() == pytest.approx((0.4 / 3, 0.6 / 3))
    edits = LayerSparsity().edits(found.decode((0,)).tables["layer_sparsity"], BODY)
    assert set(edits) == {"blocks.1.q", "blocks.1.down"}


def test_an_empty_table_is_refused():
    with pytest.raises(PolicyError, match="names no part"):
        space_of({})
