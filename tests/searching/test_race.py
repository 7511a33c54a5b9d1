"""Races: who drops out when, and what a candidate that dropped out is told to be worth."""

from math import inf

import pytest

from slimsearch.errors import SettingsError
from slimsearch.policy import Policy
from slimsearch.record.candidate import Candidate, Score
from slimsearch.searching.race import measurements, race, rungs


def field(count: int) -> list[Candidate]:
    return [Candidate(f"1-{n:02d}", (n,), Policy({})) for n in range(count)]


def measuring(totals):
    """Measures by a table (candidate, share) -> total, and notes what it was asked."""
    asked = []

    def measure(candidates, share):
        asked.append((share, [c.genes[0] for c in candidates]))
        return [Score(c.name, c.genes, totals(c.genes[0], share), share=share) for c in candidates]

    return measure, asked


def test_rungs_are_read_and_end_with_everything():
    assert rungs("0.125, 0.5") == (0.125, 0.5, 1.0)
    assert rungs("") == (1.0,)


@pytest.mark.parametrize("setting", ["half", "0.5, 0.25", "0", "1", "0.5,0.5", "-0.1", "nan"])
def test_rungs_that_cannot_be_are_refused(setting):
    with pytest.raises(SettingsError, match="racing = "):
        rungs(setting)


def test_the_better_go_on():
    measure, asked = measuring(lambda genes, share: float(genes))
    race(field(10), (0.1, 0.5, 1.0), measure)
    assert asked == [(0.1, list(range(10))), (0.5, [0, 1, 2, 3]), (1.0, [0, 1])]
    assert measurements(10, (0.1, 0.5, 1.0)) == [10, 4, 2]


def test_who_is_sure_does_not_drop_out():
    """The worst of all on parts, the best on everything."""
    measure, asked = measuring(lambda genes, share: -1.0 if (genes, share) == (9, 1.0) else genes)
    found = race(field(10), (0.1, 0.5, 1.0), measure, {"1-09"})
    assert asked == [(0.1, list(range(10))), (0.5, [0, 1, 2, 3, 9]), (1.0, [0, 1, 9])]
    assert min(found, key=lambda score: score.total).candidate == "1-09"


def test_scores_keep_their_order_and_their_share():
    measure, _ = measuring(lambda genes, share: float(9 - genes))
    scores = race(field(10), (0.5, 1.0), measure)
    assert [score.candidate for score in scores] == [c.name for c in field(10)]
    assert [score.share for score in scores] == [0.5] * 6 + [1.0] * 4


def test_one_that_dropped_out_is_placed_behind_the_winner_by_what_it_lost():
    """On a tenth all totals are 5 lower: the difference counts, not the level."""
    measure, _ = measuring(lambda genes, share: genes + (0.0 if share == 1 else -5.0))
    scores = race(field(5), (0.1, 1.0), measure)
    assert [score.total for score in scores] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_without_rungs_everyone_is_measured_once_on_everything():
    measure, asked = measuring(lambda genes, share: float(genes))
    scores = race(field(3), (1.0,), measure)
    assert asked == [(1.0, [0, 1, 2])]
    assert [score.total for score in scores] == [0.0, 1.0, 2.0]


def test_what_failed_drops_out_and_stays_failed():
    measure, asked = measuring(lambda genes, share: inf if genes == 0 else float(genes))
    scores = race(field(5), (0.1, 1.0), measure)
    assert asked[1][1] == [1, 2]
    assert not scores[0].ok
    assert all(score.ok for score in scores[1:])


def test_if_all_fail_all_are_told():
    measure, asked = measuring(lambda genes, share: inf)
    assert [score.ok for score in race(field(3), (0.5, 1.0), measure)] == [False] * 3
    assert asked[-1] == (1.0, [])


def test_failing_at_the_last_rung_leaves_the_others_as_they_were():
    measure, _ = measuring(lambda genes, share: inf if share == 1 else float(genes))
    scores = race(field(4), (0.5, 1.0), measure)
    assert [score.ok for score in scores] == [False, False, True, True]
