"""What single parts of a decoder take, out of a table of whole passes."""

import numpy as np
import pytest

from slimsearch.latency.meter import LatencyMeter
from slimsearch.latency.table import Point, Table
from slimsearch.policy import Matrix
from slimsearch.routes.traffic import Traffic

BLOCKS, TOKENS = 2, 10
MATRICES = [
    Matrix(f"blocks.{block}.{role}", *sides)
    for block in range(BLOCKS)
    for role, sides in {"q": (4, 4), "up": (8, 4)}.items()
]
SIZE = sum(matrix.size for matrix in MATRICES)
# As DeepSparse tells it of some processors: 'up' is computed under another name, in the rest.
FUSED = Table({}, (
    Point(0.0, {"4 x 4": 3.0, "8 x 4": 0.0}, 25.0, 1.0),
    Point(0.5, {"4 x 4": 2.0, "8 x 4": 0.0}, 15.0, 1.0),
    Point(0.9, {"4 x 4": 1.0, "8 x 4": 0.0}, 9.0, 1.0),
))  # fmt: skip
METER = LatencyMeter(FUSED, TOKENS, BLOCKS, SIZE)


def whole(level: float, tokens: int = TOKENS) -> float:
    work = Traffic(visual=0, text=tokens, fed=tokens)
    return METER.whole(MATRICES, [level] * len(MATRICES), [work] * BLOCKS)


@pytest.mark.parametrize("place", range(3))
def test_parts_at_one_level_take_what_the_pass_took(place):
    point = FUSED.points[place]
    assert whole(point.sparsity) == pytest.approx(point.rest + BLOCKS * point.matrices["4 x 4"])


def test_what_hides_in_the_rest_is_the_matrices_own_by_their_size():
    up = MATRICES[1]
    work = Traffic(visual=0, text=TOKENS, fed=TOKENS)
    dense, sparse = METER.matrix(up, work, np.array([0.0, 0.9]))
    assert dense - sparse == pytest.approx((25.0 - 9.0) * up.size / SIZE)
    assert sparse == 0.0


def test_fewer_tokens_take_their_share_of_all_but_the_head():
    assert whole(0.5, TOKENS // 2) - METER.rest == pytest.approx((whole(0.5) - METER.rest) / 2)
    assert METER.rest == 1.0


def test_queries_that_nobody_looks_at_take_nothing():
    cut = Traffic(visual=6, text=4, fed=TOKENS, window=0)
    q = MATRICES[0]
    (some,) = METER.matrix(q, cut, np.zeros(1))
    (every,) = METER.matrix(q, Traffic(visual=6, text=4, fed=TOKENS), np.zeros(1))
    assert some / every == pytest.approx(0.4)
