"""Tables of families that change how blocks run: what they mean, and what they refuse."""

import pytest

from slimsearch.errors import PolicyError
from slimsearch.plugins import find
from slimsearch.policy import Body, Matrix, PolicyFile
from slimsearch.routes.route import EVERY, PICTURES, TOKENS, Step
from slimsearch.searching.space import build, check

BODY = Body(tuple(Matrix(f"blocks.{n}.q", 4, 4) for n in range(6)))
READER = Body(BODY.matrices, sees=False)


def chosen(name, table, body=BODY):
    """Blocks and their steps, by the numbers of a policy."""
    family = find("families", name)()
    file = PolicyFile("p", "", {name: table})
    check(file, {name: family}, 0.5)
    space = build(file, {name: family}, body, 0.5, "")
    policy = space.decode((0,) * len(space.genes))
    edits = family.edits(policy.tables[name], body)
    return {int(block.split(".")[1]): step for block, step in edits.items()}


@pytest.mark.parametrize(
    ("table", "blocks"),
    [
        ({"interval": 2}, {0, 2, 4}),
        ({"start": 1, "interval": 2}, {1, 3, 5}),
        ({"start": 3}, {3, 4, 5}),
        ({"start": 1, "interval": 4}, {1, 5}),
        ({"blocks.*": 1, "blocks.3": 0}, {0, 1, 2, 4, 5}),
        ({"start": 1, "interval": 2, "blocks.1": 0, "blocks.2": 1}, {2, 3, 5}),
        ({"blocks.*": "1"}, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_a_rule_or_a_line_for_each_block(table, blocks):
    for name in ("skip_block", "skip_ffn", "skip_attention", "parallel_ffn_attention"):
        assert set(chosen(name, table)) == blocks


def test_tokens_and_other_options():
    assert chosen("skip_block", {"start": 5}) == {5: Step(skip_block=EVERY)}
    assert chosen("skip_ffn", {"start": 5, "tokens": "T"}) == {5: Step(skip_ffn=TOKENS["T"])}
    assert chosen("attention_cut", {"start": 5, "window": 3}) == {5: Step(window=3)}
    assert chosen("attention_cut", {"blocks.2": 1}) == {2: Step(window=0)}
    assert chosen("layer_cut", {"last": 2}) == {4: Step(PICTURES), 5: Step(PICTURES)}
    assert chosen("layer_cut", {"last": 0}) == {}


def test_pairs_do_not_overlap():
    assert set(chosen("parallel_blocks", {"start": 1})) == {1, 3}
    assert set(chosen("parallel_blocks", {"blocks.*": 1})) == {0, 2, 4}
    assert set(chosen("parallel_blocks", {"start": 0, "interval": 3})) == {0, 3}
    assert chosen("parallel_blocks", {"blocks.4": 1, "combine": "sum"}) == {
        4: Step(parallel_next="sum")
    }


def test_genes_of_a_rule():
    family = find("families", "skip_block")()
    table = {"start": "0..4 by 2", "interval": "1,2,3", "tokens": "T"}
    genes = family.genes(table, BODY, 0.5)
    assert [(gene.key, gene.choices) for gene in genes] == [
        ("start", (0, 2, 4)), ("interval", (1, 2, 3)),
    ]  # fmt: skip
    assert family.edits({"start": 2, "interval": 3, "tokens": "T"}, BODY).keys() == {
        "blocks.2", "blocks.5"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "table", "says"),
    [
        ("skip_block", {"interval": 0}, "'interval': 0 cannot be; it is 1 at least"),
        ("skip_block", {"interval": "0..2"}, "it is 1 at least"),
        ("parallel_blocks", {"interval": 1}, "it is 2 at least"),
        ("skip_block", {"start": 6}, "starts at block 6; this model's last one .* is 5"),
        ("skip_block", {"start": "2..9"}, "starts at block 9"),
        ("parallel_blocks", {"start": 5}, "is 4"),
        ("parallel_blocks", {"blocks.5": 1}, "'blocks.5' names no block"),
        ("skip_block", {"blocks.7": 1}, "'blocks.7' names no block"),
        ("skip_block", {"blocks.1.q": 1}, "'blocks.1.q' names no block"),
        ("skip_block", {"blocks.*": 2}, "2 is too much; it can be 1"),
        ("skip_block", {"blocks.*": 0.5}, "0.5 is no whole number"),
        ("skip_block", {"blocks.*": "yes"}, "'yes' is no level"),
        ("skip_block", {"start": -1}, "-1 is no whole number"),
        ("skip_block", {"tokens": "T"}, "names no part of the model: give it"),
        ("skip_block", {"start": 0, "tokens": "P"}, "'tokens' is 'P'; it can be P\\+T or T"),
        ("skip_block", {"start": 0, "tokens": 1}, "'tokens' is 1"),
        ("parallel_blocks", {"start": 0, "combine": "max"}, "can be mean or sum"),
        ("skip_block", {"strat": 0}, "no option 'strat'. It has tokens, start, interval"),
        ("skip_block", {"start": 0, "window": 1}, "no option 'window'"),
        ("attention_cut", {"start": 0, "window": -1}, "-1 is no whole number"),
        ("layer_cut", {"last": 7}, "'last' is 7; this model has 6 blocks"),
        ("layer_cut", {"last": "0..7"}, "'last' is 7"),
        ("layer_cut", {"blocks.*": 1}, "no option 'blocks.\\*'"),
    ],
)
def test_nonsense_is_refused(name, table, says):
    with pytest.raises(PolicyError, match=says):
        chosen(name, table)


@pytest.mark.parametrize(
    ("name", "table"), [("layer_cut", {"last": 1}), ("attention_cut", {"start": 0})]
)
def test_a_model_that_sees_nothing_has_no_pictures_to_cut(name, table):
    with pytest.raises(PolicyError, match="reads text only"):
        chosen(name, table, READER)


def test_an_error_names_the_file():
    family = find("families", "skip_block")()
    file = PolicyFile("p", "", {"skip_block": {"interval": 0}}, "mine.toml")
    with pytest.raises(PolicyError, match=r"^mine.toml: \[skip_block\]"):
        check(file, {"skip_block": family}, 0.5)
