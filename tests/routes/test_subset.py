"""Tokens taken out and put back, against plain loops."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimsearch.routes.subset import Subset

LIVE = st.integers(1, 3).flatmap(
    lambda rows: st.integers(1, 6).flatmap(
        lambda length: st.lists(
            st.lists(st.booleans(), min_size=length, max_size=length), min_size=rows, max_size=rows
        )
    )
)


@settings(max_examples=100, deadline=None)
@given(live=LIVE)
def test_what_is_taken_comes_back_to_its_place(live):
    live = torch.tensor(live)
    rows, length = live.shape
    tokens = torch.arange(rows * length * 2.0).view(rows, length, 2)
    some = Subset.where(live)
    taken = some.take(tokens)
    assert some.count == max(row.sum() for row in live)
    for row in range(rows):
        wanted = tokens[row][live[row]]
        assert torch.equal(taken[row][some.real[row]], wanted)
    put = some.put(tokens, taken + 1000)
    assert torch.equal(put, torch.where(live[..., None], tokens + 1000, tokens))
    assert some.whole == bool(live.all())


@settings(max_examples=100, deadline=None)
@given(live=LIVE, data=st.data())
def test_a_subset_within_another_finds_the_same_tokens(live, data):
    live = torch.tensor(live)
    less = live & torch.tensor(data.draw(st.lists(
        st.lists(st.booleans(), min_size=live.shape[1], max_size=live.shape[1]),
        min_size=len(live), max_size=len(live))))  # fmt: skip
    tokens = torch.arange(live.numel() * 1.0).view(*live.shape, 1)
    outer, inner = Subset.where(live), Subset.where(less)
    found = inner.within(outer)
    twice, once = found.take(outer.take(tokens)), inner.take(tokens)
    assert torch.equal(twice[inner.real], once[inner.real])
    back = found.put(torch.zeros_like(outer.take(tokens)), twice + 1)
    onto = outer.put(torch.zeros_like(tokens), back)
    assert torch.equal(onto, torch.where(less[..., None], tokens + 1, 0))


def test_what_is_idle_may_stay_where_it_is():
    live = torch.tensor([[True, True, False], [True, True, True]])
    assert Subset.where(live, ~live).whole
    assert not Subset.where(live).whole
    assert not Subset.where(live.flip(1), ~live.flip(1)).whole  # on the left it is in the way


def test_other_dimensions_and_one_row_for_all():
    live = torch.tensor([[True, False, True], [False, True, False]])
    some = Subset.where(live)
    heads = torch.arange(2 * 4 * 3 * 5.0).view(2, 4, 3, 5)
    taken = some.take(heads, 2)
    assert torch.equal(taken[0], heads[0, :, [0, 2]])
    assert torch.equal(taken[1, :, :1], heads[1, :, [1]])
    assert torch.equal(some.put(torch.zeros_like(heads), taken, 2),
                       heads * live[:, None, :, None])  # fmt: skip
    places = torch.tensor([[[7, 8, 9]]] * 3)  # as of positions in three dimensions
    given = some.taken({"position_ids": places, "position_embeddings": (places[..., None],) * 2})
    assert given["position_ids"].tolist() == [[[7, 9], [8, 7]]] * 3
    assert given["position_embeddings"][0].squeeze(-1).tolist() == [[[7, 9], [8, 7]]] * 3
