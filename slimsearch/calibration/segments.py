"""Random segments of a tokenised stream, as SparseGPT and SlimLLaVA draw them."""

from collections.abc import Sequence

import numpy as np

from slimsearch.errors import CalibrationError


def draw_segments(
    tokens: Sequence[int] | np.ndarray, count: int, length: int, seed: int, origin: str
) -> np.ndarray:
    """`count` segments [count, length] from offsets drawn evenly; they may overlap.

    `origin` names the text in an error.
    """
    stream = np.asarray(tokens, dtype=np.int64)
    if len(stream) < length:
        raise CalibrationError(
            f"{origin} holds {len(stream)} tokens, fewer than one segment of {length}. "
            f"Give more text or shorter segments (--segment-length)."
        )
    last = len(stream) - length
    offsets = np.random.default_rng(seed).integers(0, last, size=count, endpoint=True)
    return stream[offsets[:, None] + np.arange(length)]
