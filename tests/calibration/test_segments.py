import numpy as np
import pytest

from slimsearch.calibration import draw_segments
from slimsearch.errors import CalibrationError


def test_segments_are_pieces_of_the_stream():
    segments = draw_segments(range(100, 1100), 64, 16, seed=0, origin="a text")
    assert segments.shape == (64, 16)
    assert segments.dtype == np.int64
    assert (np.diff(segments, axis=1) == 1).all()
    assert segments.min() >= 100
    assert segments.max() < 1100


def test_the_seed_decides():
    first, again, other = (draw_segments(range(1000), 8, 16, seed, "a text") for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_every_offset_is_drawn_first_and_last_too():
    starts = draw_segments(np.arange(10), 500, 7, seed=0, origin="a text")[:, 0]
    assert set(starts) == {0, 1, 2, 3}


def test_a_stream_of_one_segment_is_enough():
    assert draw_segments([5, 6, 7], 2, 3, 0, "a text").tolist() == [[5, 6, 7]] * 2


@pytest.mark.parametrize("tokens", [[], [1, 2, 3]])
def test_a_short_stream_is_refused(tokens: list[int]):
    with pytest.raises(CalibrationError) as refusal:
        draw_segments(tokens, 2, 4, 0, "short.txt")
    assert str(refusal.value) == (
        f"short.txt holds {len(tokens)} tokens, fewer than one segment of 4. "
        f"Give more text or shorter segments (--segment-length)."
    )
