"""Neighbour density against SlimLLaVA's equation 7, written out."""

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimsearch.searching.density import neighbour_density


def literally(policies: list[list[float]], k: int) -> list[float]:
    """c_m = softmax_m(-sum over its k nearest neighbours of ||alpha_m - alpha||^2)."""
    raw = []
    for m, alpha in enumerate(policies):
        distances = sorted(
            sum((a - b) ** 2 for a, b in zip(alpha, other, strict=True))
            for n, other in enumerate(policies)
            if n != m
        )
        raw.append(exp(-sum(distances[:k])))
    return [value / sum(raw) for value in raw]


@given(
    policies=st.integers(1, 6).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(0, 1), min_size=width, max_size=width), min_size=2, max_size=12
        )
    ),
    k=st.integers(1, 14),
)
def test_it_is_equation_7(policies, k):
    assert neighbour_density(policies, k) == pytest.approx(literally(policies, k))
    assert sum(neighbour_density(policies, k)) == pytest.approx(1)


def test_dense_regions_weigh_more():
    weights = neighbour_density([[0.5, 0.5], [0.5, 0.6], [0.6, 0.5], [0.0, 1.0]], 2)
    assert min(weights) == weights[3]
    assert max(weights) == weights[0]


def test_one_policy_weighs_all_and_none_nothing():
    assert neighbour_density([[0.3]], 5) == [1.0]
    assert neighbour_density([], 5) == []


def test_copies_weigh_the_same():
    assert neighbour_density([[0.5]] * 4, 5) == pytest.approx([0.25] * 4)


def test_far_points_do_not_underflow():
    weights = neighbour_density([[0.0] * 32, [1.0] * 32, [0.0] * 31 + [1.0], [100.0] * 32], 3)
    assert sum(weights) == pytest.approx(1)
