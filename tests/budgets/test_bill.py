"""Budgets in FLOPs: genes of every family together, held against a count made one by one."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slimsearch import plugins
from slimsearch.budgets.bill import Spent
from slimsearch.budgets.budget import TOLERANCE, Budget
from slimsearch.errors import PolicyError
from slimsearch.flops import count
from slimsearch.flops.measured_pass import measured_pass
from slimsearch.flops.meter import FlopMeter
from slimsearch.flops.shape import Shape
from slimsearch.policy import Body, Matrix, PolicyFile
from slimsearch.routes.route import plain
from slimsearch.routes.traffic import prompt
from slimsearch.searching import space

BLOCKS, WIDTH, WIDER = 4, 12, 20
ROLES = {
    **dict.fromkeys(("q", "k", "v", "o"), (WIDTH, WIDTH)), "gate": (WIDER, WIDTH),
    "up": (WIDER, WIDTH), "down": (WIDTH, WIDER),
}  # fmt: skip
MATRICES = tuple(Matrix(f"blocks.{n}.{r}", *s) for n in range(BLOCKS) for r, s in ROLES.items())
SIZES = Shape(MATRICES, (None,) * BLOCKS, heads=2, key_heads=2, head_width=6, head=400)
BODY = Body(MATRICES, sees=True)
JOINT = {
    "layer_sparsity": {"blocks.*.*": "-0.50..+0.30 by 0.05"},
    "skip_block": {"blocks.*": "0,1"},
    "skip_attention": {"blocks.*": "0,1"},
    "skip_ffn": {"blocks.*": "0,1"},
    "attention_cut": {"blocks.*": "0,1"},
    "layer_cut": {"last": "0..2 by 1"},
}
SPACES = {
    "joint": JOINT,
    "sparsity": {"layer_sparsity": JOINT["layer_sparsity"]},
    "by block": {"layer_sparsity": {"blocks.*": "-0.50..+0.30 by 0.05"}, "skip_block":
                 JOINT["skip_block"]},
    "skips": {"skip_block": JOINT["skip_block"]},
    "a rule": {"layer_sparsity": JOINT["layer_sparsity"],
               "skip_block": {"start": "0,1,2", "interval": "2,3,4"}},
}  # fmt: skip


def build(name: str, target: float = 0.5) -> space.Space:
    tables = SPACES[name]
    families = {family: plugins.make("families", family, {}) for family in tables}
    found = space.build(PolicyFile(name, "", tables), families, BODY, target, "")
    one = measured_pass(SIZES, "prefill", 24, 16)

    def traffics(genes):
        return one.traffic(space.route(found.decode(genes), families, BODY))

    bill = Spent(found.genes, found.parts(BODY), MATRICES, traffics, one.traffic(plain(BLOCKS)),
                 FlopMeter(SIZES))  # fmt: skip
    return space.Space(found.genes, Budget(found.genes, target, bill), found.words)


def by_hand(found: space.Space, genes) -> float:
    """The share that goes, from the policy's own tables: every part of every block looked at."""
    policy = found.decode(genes)
    families = {family: plugins.make("families", family, {}) for family in policy.tables}
    route = space.route(policy, families, BODY)
    levels = {}
    if "layer_sparsity" in families:
        levels = families["layer_sparsity"].edits(policy.table("layer_sparsity"), BODY)
    left, whole = (
        count.total(count.decoder(SIZES, prompt(some, SIZES.spans, 16, 8), zeros)).left
        for some, zeros in ((route, levels), (plain(BLOCKS), {}))
    )
    return 1 - left / whole


def drawn(found: space.Space, data) -> tuple[int, ...]:
    return tuple(data.draw(st.integers(0, len(gene.choices) - 1)) for gene in found.genes)


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_bill_says_what_a_count_of_the_policy_says(name, data):
    found = build(name)
    genes = drawn(found, data)
    assert found.budget.removed(genes) == pytest.approx(by_hand(found, genes), abs=1e-12)
    where = data.draw(st.integers(0, len(genes) - 1))
    to = data.draw(st.integers(0, len(found.genes[where].choices) - 1))
    moved = (*genes[:where], to, *genes[where + 1 :])
    more = found.budget.bill.change(genes, where, to) / found.budget.bill.total
    assert more == pytest.approx(by_hand(found, moved) - by_hand(found, genes), abs=1e-12)
    anyway, amounts = found.budget.bill.offers(genes)
    offered = anyway + sum(
        some[index] for some, index in zip(amounts, genes, strict=True) if len(some) > 1
    )
    assert offered / found.budget.bill.total == pytest.approx(by_hand(found, genes), abs=1e-12)


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 9), target=st.sampled_from([0.3, 0.5, 0.6]))
def test_repaired_genes_are_within_bounds_on_target_and_left_alone(name, data, seed, target):
    found = build(name, target)
    try:
        repaired = found.budget.repair(drawn(found, data), np.random.default_rng(seed))
    except PolicyError:
        assume(name == "skips")
        raise
    assert all(0 <= i < len(g.choices) for i, g in zip(repaired, found.genes, strict=True))
    assert abs(by_hand(found, repaired) - target) <= found.budget.tolerance + 1e-9
    assert found.budget.repair(repaired, np.random.default_rng(seed + 1)) == repaired
    if name != "skips":
        assert found.budget.tolerance == TOLERANCE


def test_what_is_not_computed_is_at_its_first_choice():
    found = build("joint")
    skipped = [gene.family == "skip_block" and gene.key == "blocks.1" for gene in found.genes]
    genes = [int(some) or (5 if g.family == "layer_sparsity" else 0)
             for some, g in zip(skipped, found.genes, strict=True)]  # fmt: skip
    repaired = found.budget.repair(genes, np.random.default_rng(0))
    for gene, index in zip(found.genes, repaired, strict=True):
        if gene.family == "layer_sparsity" and gene.key.startswith("blocks.1."):
            assert index == 0


def test_whole_blocks_come_as_near_as_half_a_block():
    found = build("skips")
    shares = sorted({round(by_hand(found, g), 9) for g in product((0, 1), repeat=BLOCKS)})
    assert len(shares) == BLOCKS + 1
    assert found.budget.tolerance == pytest.approx((shares[1] - shares[0]) / 2)
    assert found.budget.reach() == pytest.approx((0, shares[-1]))


def test_a_target_out_of_reach_is_refused_with_what_can_be_met():
    found = build("sparsity", 0.1)  # levels from 0 to 0.4
    low, high = found.budget.reach()
    out = Budget(found.genes, high + 0.05, found.budget.bill)
    with pytest.raises(PolicyError, match=rf"{low:.3f} to {high:.3f} of the decoder's FLOPs"):
        out.check()


def test_uniform_raises_all_levels_together_and_changes_no_block():
    found = build("joint")
    genes = found.budget.uniform(np.random.default_rng(0))
    assert abs(by_hand(found, genes) - 0.5) <= TOLERANCE
    values = dict(zip(((g.family, g.key) for g in found.genes), genes, strict=True))
    levels = [index for (family, _), index in values.items() if family == "layer_sparsity"]
    assert max(levels) - min(levels) <= 2
    assert not any(index for (family, _), index in values.items() if family != "layer_sparsity")


@pytest.mark.parametrize("name", ["sparsity", "by block", "skips", "joint"])
def test_the_cheapest_genes_cost_no_more_than_many_others(name):
    """Costs add up here; random policies on the target never cost less, nor does a descent."""
    found, draw = build(name), np.random.default_rng(0)
    costs = [
        np.sort(draw.random(len(gene.choices))) * (1 if gene.size else 4) for gene in found.genes
    ]
    for row in costs:
        row[0] = 0.0

    def cost(genes) -> float:
        idle = found.budget.bill.idle(genes)
        return sum(c[i] for w, (c, i) in enumerate(zip(costs, genes, strict=True)) if w not in idle)

    best = found.budget.cheapest(costs)
    assert abs(by_hand(found, best) - 0.5) <= found.budget.tolerance + 1e-9
    for seed in range(20):
        random = np.random.default_rng(seed)
        start = [int(random.integers(len(gene.choices))) for gene in found.genes]
        if seed % 2:
            start = found.budget.switch(best, 2, random)
        assert cost(best) <= cost(found.budget.repair(start, random)) + 0.02 * cost(best)


@pytest.mark.parametrize("strategy", ["random", "genetic", "level_switch", "surrogate", "uniform"])
def test_strategies_search_joint_spaces(strategy):
    from slimsearch.record.candidate import Score

    found = build("joint")
    made = plugins.find("strategies", strategy)(found.budget, 6, 3, 0)
    seen = set()
    for _ in range(3):
        asked = made.ask()
        for genes in asked:
            assert abs(by_hand(found, genes) - 0.5) <= TOLERANCE + 1e-9
        seen |= set(asked)
        scores = [Score(str(g), g, float(sum(g))) for g in {*asked, *made.survivors}]
        if not asked:
            break
        made.tell(scores)
    assert len(seen) >= (1 if strategy == "uniform" else 10)
