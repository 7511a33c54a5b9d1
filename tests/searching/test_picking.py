"""Which candidate is best where several terms count."""

from math import inf

import numpy as np
import pytest

from slimsearch.errors import SettingsError
from slimsearch.record.candidate import Score
from slimsearch.searching import picking


def score(name: str, *terms: float, total: float = 0.0) -> Score:
    return Score(name, (len(name),), total, dict(zip("abc", terms, strict=False)))


def names(scores) -> list[str]:
    return [score.candidate for score in scores]


def test_a_front_holds_what_nothing_beats():
    scores = [score(n, *t) for n, t in
              {"low": (0, 9), "mid": (4, 4), "high": (9, 0), "beaten": (5, 4), "far": (9, 9),
               "equal": (4, 4)}.items()]  # fmt: skip
    assert names(picking.front([*scores, Score("failed", (1,), inf)])) == ["low", "mid", "high"]


def test_a_front_of_three_terms_is_that_of_its_definition():
    drawn = np.random.default_rng(0).integers(0, 6, (60, 3))
    scores = [score(str(n), *map(float, row)) for n, row in enumerate(drawn)]
    found = {tuple(s.terms.values()) for s in picking.front(scores)}
    wanted = {
        tuple(map(float, a)) for a in drawn
        if not any((b <= a).all() and (b < a).any() for b in drawn)
    }  # fmt: skip
    assert found == wanted


def test_the_knee_is_farthest_below_the_line_between_the_ends():
    xs = np.linspace(0.1, 10, 40)
    front = [score(str(n), x, 1000 / x) for n, x in enumerate(xs)]
    best = picking.parse("knee", "ab", True).order(front, front)[0]
    a, b = (np.array([s.terms[t] for s in front]) for t in "ab")
    a, b = (a - a.min()) / (a.max() - a.min()), (b - b.min()) / (b.max() - b.min())
    below = (1 - a - b) / np.sqrt(2)  # from the line through (0, 1) and (1, 0)
    assert best.candidate == str(int(below.argmax()))


def test_a_bound_takes_the_best_of_what_meets_it_else_the_nearest():
    front = [score(str(n), float(n), 10.0 - n) for n in range(10)]
    pick = picking.parse("a <= 4.5", "ab", True)
    assert names(pick.order(front, front))[:6] == ["4", "3", "2", "1", "0", "5"]
    assert pick.meets(front[4])
    assert not pick.meets(front[5])
    assert names(picking.parse("a<=-1", "ab", True).order(front, front))[0] == "0"


def test_the_total_is_what_auto_means_where_one_number_counts():
    scores = [score("x", 1.0, 5.0, total=3.0), score("y", 2.0, 2.0, total=2.0)]
    for text in ("auto", "total"):
        assert names(picking.parse(text, "ab", False).order(scores, scores)) == ["y", "x"]
    assert not picking.parse("auto", "ab", True).total
    assert picking.parse("total", "ab", True).total


@pytest.mark.parametrize("text", ["knees", "a<3", "a<=", "a<=x", "<=3", "a<=nan", "c<=1"])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(SettingsError, match="pick"):
        picking.parse(text, ("a", "b"), True)
