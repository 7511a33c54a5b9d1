"""Steps put together, and a route written down and read again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimsearch.errors import ModelError
from slimsearch.routes.kinds import PICTURE, PROMPT, TEXT
from slimsearch.routes.route import (
    EVERY,
    NONE,
    TOKENS,
    Merge,
    Route,
    Step,
    from_json,
    plain,
    together,
)

KINDS = st.sampled_from([NONE, TOKENS["T"], EVERY, frozenset({PICTURE}), frozenset({PROMPT, TEXT})])
STEPS = st.builds(
    Step, KINDS, KINDS, KINDS, st.booleans(), st.sampled_from(["", "mean", "sum"]),
    st.sampled_from([None, 0, 3]),
)  # fmt: skip
ROUTES = st.builds(
    Route, st.lists(STEPS, min_size=1, max_size=4).map(tuple),
    st.sampled_from([None, Merge(), Merge(1.0, 1)]),
)  # fmt: skip


@given(route=ROUTES)
def test_a_route_is_what_was_written(route):
    told = json.loads(json.dumps(route.as_json()))
    assert from_json(told, len(route.steps), "x") == route


def test_what_is_written_names_only_what_is_out_of_the_ordinary():
    route = Route((Step(), Step(skip_block=TOKENS["T"], window=0)), Merge(2.0))
    assert route.as_json() == {
        "blocks": {"1": {"skip_block": "T", "window": 0}}, "merge": {"keep": 2.0, "plus": 0}
    }  # fmt: skip
    assert plain(3).as_json() == {"blocks": {}}
    assert not plain(3)
    assert route


@pytest.mark.parametrize(
    "told",
    [{}, [], {"blocks": {"4": {}}}, {"blocks": {"0": {"skip_block": "X"}}},
     {"blocks": {"0": {"shortcut": 1}}}, {"blocks": {}, "merge": {"much": 1}}],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(told):
    with pytest.raises(ModelError, match=r"slimsearch\.json says how"):
        from_json(told, 2, "slimsearch.json")


def test_what_one_takes_away_another_does_not_bring_back():
    one = {"blocks.0": Step(skip_block=TOKENS["T"]), "blocks.0.q": 0.5}
    other = {
        "blocks.0": Step(skip_block=frozenset({PICTURE}), window=4),
        "blocks.1": Step(window=2),
    }
    found = together([one, other, {"blocks.1": Step(window=0)}], ("blocks.0", "blocks.1"))
    assert found.steps == (Step(frozenset({TEXT, PICTURE}), window=4), Step(window=0))


def test_blocks_that_every_token_skips_are_not_kept_unless_read_beside_another():
    gone = Step(skip_block=EVERY)
    assert Route((gone, Step(), gone)).kept == (1,)
    assert Route((Step(parallel_next="sum"), gone, gone)).kept == (0, 1)
    assert Route((gone, Step(window=1))).without_skipped() == Route((Step(window=1),))
