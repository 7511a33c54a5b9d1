"""Spearman's rank correlation: whether two lists order the same things alike."""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """From -1 to 1; None for fewer than three, or where one of both orders nothing."""
    if len(a) < 3:
        return None
    first, second = _ranks(a), _ranks(b)
    if not first.std() or not second.std():
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Sequence[float]) -> ndarray:
    """Places from 0; what is equal shares the mean of its places."""
    array = np.asarray(values, float)
    below = (array[None, :] < array[:, None]).sum(1)
    alike = (array[None, :] == array[:, None]).sum(1)
    return below + (alike - 1) / 2
