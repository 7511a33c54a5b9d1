"""Figures, intervals and differences against slow references of their own."""

import random
from itertools import combinations
from math import comb

import numpy as np
import pytest

from slimsearch import scoring
from slimsearch.scoring import WHOLE, Mark, ratio


def accuracy(sums):
    return {
        group: {"accuracy": 100 * ratio(some["right"], some["count"])}
        for group, some in sums.items()
    }


def marks(right: list[int], group=lambda n: (), unit=str) -> list[Mark]:
    return [
        Mark(unit(n), group(n), {"right": float(hit), "count": 1.0}) for n, hit in enumerate(right)
    ]


def test_a_figure_is_counted_for_the_whole_and_for_each_group():
    found = scoring.measured(
        marks([1, 0, 1, 1, 0], lambda n: ("odd",) if n % 2 else ("even", "all")), accuracy, 0
    )
    assert list(found) == [WHOLE, "all", "even", "odd"]
    assert found[WHOLE]["accuracy"].value == pytest.approx(60)
    assert found["even"]["accuracy"].value == pytest.approx(200 / 3)
    assert found["odd"]["accuracy"].value == pytest.approx(50)


def test_the_interval_is_that_of_a_plain_bootstrap():
    draw = random.Random(1)
    right = [int(draw.random() < 0.7) for _ in range(80)]
    slow = sorted(100 * sum(draw.choice(right) for _ in right) / len(right) for _ in range(20_000))
    found = scoring.measured(marks(right), accuracy, 3)[WHOLE]["accuracy"]
    assert found.low == pytest.approx(slow[500], abs=1.3)
    assert found.high == pytest.approx(slow[-500], abs=1.3)
    assert found.low < found.value < found.high


def test_units_are_drawn_together():
    """Forty answers in four units of equal answers are as unsure as four answers."""
    right = [int(n // 10 in (0, 2)) for n in range(40)]
    together = scoring.measured(marks(right, unit=lambda n: str(n // 10)), accuracy, 0)
    apart = scoring.measured(marks(right), accuracy, 0)
    wide = together[WHOLE]["accuracy"].high - together[WHOLE]["accuracy"].low
    narrow = apart[WHOLE]["accuracy"].high - apart[WHOLE]["accuracy"].low
    assert wide == pytest.approx(100)
    assert narrow < 35


def test_a_single_unit_has_no_interval():
    found = scoring.measured(marks([1]), accuracy, 0)[WHOLE]["accuracy"]
    assert (found.value, found.low, found.high) == (100, None, None)


def test_weights_in_pieces_are_the_same_figures(monkeypatch):
    whole = scoring.measured(marks([1, 0] * 20), accuracy, 0)
    monkeypatch.setattr(scoring, "AT_ONCE", 40 * 7)
    assert scoring.measured(marks([1, 0] * 20), accuracy, 0) == whole


def test_nothing_to_divide_by_is_not_a_number():
    assert np.isnan(ratio(1.0, 0.0))
    assert ratio(np.array([1.0, 2.0]), np.array([2.0, 0.0])).tolist()[0] == 0.5


def test_a_model_differs_from_itself_by_nothing():
    some = marks([1, 0, 1, 1, 0, 0])
    found = scoring.compared(some, some, accuracy, 0)[WHOLE]["accuracy"]
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_pairing_sees_what_two_intervals_do_not():
    draw = random.Random(0)
    second = [int(draw.random() < 0.5) for _ in range(200)]
    first = [hit or int(n % 12 == 0) for n, hit in enumerate(second)]
    found = scoring.compared(marks(first), marks(second), accuracy, 0)[WHOLE]["accuracy"]
    assert found.value == pytest.approx(100 * (sum(first) - sum(second)) / 200)
    assert found.low > 0
    assert found.p < 0.01


def test_only_shared_units_are_compared():
    found = scoring.compared(marks([1, 1, 1, 0, 0]), marks([0, 1, 1]), accuracy, 0)
    assert found[WHOLE]["accuracy"].value == pytest.approx(100 / 3)
    assert scoring.compared(marks([1]), marks([0]), accuracy, 0) == {}


def by_name(right: list[float]) -> dict[str, float]:
    return {str(n): hit for n, hit in enumerate(right)}


def test_mcnemar_counts_every_coin():
    found = scoring.mcnemar(by_name([1, 1, 1, 1, 1, 0, 1, 0]), by_name([0, 0, 0, 0, 1, 1, 1, 0]))
    assert found is not None
    assert (found["only_first"], found["only_second"]) == (4, 1)
    ways = sum(1 for k in range(6) for _ in combinations(range(5), k) if min(k, 5 - k) <= 1)
    assert found["p"] == pytest.approx(ways / 2**5)
    same = scoring.mcnemar(by_name([1, 1]), by_name([1, 1]))
    assert same == {"only_first": 0, "only_second": 0, "p": 1.0}


def test_mcnemar_of_many_is_the_binomial_sum():
    found = scoring.mcnemar(by_name([1] * 300 + [0] * 200), by_name([0] * 300 + [1] * 200))
    assert found is not None
    assert found["p"] == pytest.approx(2 * sum(comb(500, k) for k in range(201)) / 2**500)


def test_mcnemar_wants_right_and_wrong():
    assert scoring.mcnemar(by_name([0.3]), by_name([1])) is None
    assert scoring.mcnemar({}, {}) is None
