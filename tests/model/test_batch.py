"""A share of the calibration stands for all of it: rows of every length, packed anew."""

from itertools import pairwise

import pytest
import torch

from slimsearch.model.batch import IGNORED, Batch, Calibrated, batches_of
from slimsearch.routes.kinds import PADDING, TEXT

PADDED = 9


def row(length, name):
    ids = torch.full((1, length), length % 7)
    return Batch(
        ids, ids.clone(), torch.full_like(ids, TEXT), torch.zeros_like(ids), origins=(name,)
    )


@pytest.fixture
def rows():
    return [row(length, f"pair {length}") for length in range(3, 43)]


@pytest.fixture
def whole(rows):
    packed = tuple(batches_of(rows, 200, PADDED))
    return Calibrated(texts=(), pairs=packed)


@pytest.mark.parametrize("share", [0.01, 0.125, 0.25, 0.5, 0.7])
def test_a_share_holds_rows_of_every_length(whole, rows, share):
    found = [name for batch in whole.part(share).pairs for name in batch.origins]
    assert len(found) == -(-share * len(rows) // 1)
    lengths = sorted(int(name.split()[1]) for name in found)
    gaps = [after - before for before, after in pairwise(lengths)]
    assert not gaps or max(gaps) <= 2 / share
    mean = sum(lengths) / len(lengths)
    assert len(lengths) == 1 or mean == pytest.approx(sum(range(3, 43)) / 40, abs=4)


@pytest.mark.parametrize("share", [0.125, 0.5])
def test_rows_of_a_share_are_what_they_were_and_batches_no_larger(whole, rows, share):
    alone = {one.origins[0]: one for one in rows}
    most = max(batch.ids.numel() for batch in whole.pairs)
    found = whole.part(share).pairs
    assert len(found) < len(whole.pairs)
    for batch in found:
        assert batch.ids.numel() <= most
        for place, name in enumerate(batch.origins):
            one, length = alone[name], alone[name].ids.shape[1]
            assert batch.ids[place, :length].equal(one.ids[0])
            assert batch.targets[place, :length].equal(one.targets[0])
            assert bool((batch.targets[place, length:] == IGNORED).all())
            assert bool((batch.classes[place, length:] == PADDING).all())


def test_shares_hold_each_other_and_parts_make_up_the_whole(whole):
    def names(calibrated) -> set[str]:
        return {name for batch in calibrated.pairs for name in batch.origins}

    parts = [whole.part(0.125), whole.part(0.5, 0.125), whole.part(1.0, 0.5)]
    assert [len(names(part)) for part in parts] == [5, 15, 20]
    assert names(parts[0]) | names(parts[1]) == names(whole.part(0.5))
    assert set.union(*map(names, parts)) == names(whole)


def test_a_share_of_little_leaves_nothing_to_add():
    one = Calibrated((row(4, "alone"),), ())
    assert len(one.part(0.125).texts) == 1
    assert one.part(0.5, 0.125).texts == ()
    assert one.part(1.0, 0.5).texts == ()


def test_a_share_is_always_the_same_rows_and_all_of_it_is_all(whole):
    one, two = whole.part(0.3).pairs, whole.part(0.3).pairs
    assert [batch.origins for batch in one] == [batch.origins for batch in two]
    assert whole.part(1.0).pairs == whole.pairs
    assert whole.part(0.5).texts == ()
