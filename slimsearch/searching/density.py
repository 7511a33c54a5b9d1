"""How close a candidate stands to others: SlimLLaVA, equation 7.

c_m = softmax_m(-sum of ||alpha_m - alpha||^2 over the nearest neighbours). Dense regions of the
policy space are where the search converges, so their candidates weigh more in the projector step.
"""

from collections.abc import Sequence

import numpy as np


def neighbour_density(policies: Sequence[Sequence[float]], neighbours: int) -> list[float]:
    """Weights that sum to 1, one for each policy (its genes' values); fewer than two: all equal."""
    points = np.asarray(policies, dtype=np.float64)
    if len(points) < 2:
        return [1.0] * len(points)
    squared = ((points[:, None, :] - points[None, :, :]) ** 2).sum(-1)
    np.fill_diagonal(squared, np.inf)
    nearest = np.sort(squared, axis=1)[:, : min(neighbours, len(points) - 1)]
    away = -nearest.sum(1)
    weights = np.exp(away - away.max())
    return (weights / weights.sum()).tolist()
