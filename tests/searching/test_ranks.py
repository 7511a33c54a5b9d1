"""Spearman's rank correlation, against the textbook's."""

from math import inf

import pytest

from slimsearch.searching import ranks


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([1, 2], [1, 2], None),
        ([1, 2, 3], [5, 5, 5], None),
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),  # 1 - 6 * 2 / (4 * 15)
        ([1, 2, 3, 4], [1, 3, 2, inf], 0.8),  # only the order counts
        ([1, 1, 2], [1, 2, 3], 0.75**0.5),  # ties share a place
    ],
)
def test_it_is_spearmans(a, b, wanted):
    assert ranks.correlation(a, b) == (None if wanted is None else pytest.approx(wanted))
