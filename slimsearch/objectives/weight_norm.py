"""The generalisation term: how much Frobenius norm the pruned weights keep.

SlimLLaVA, equation 4, multiplies the norms of all layers; the raw product leaves the range of any
float. This is its scale-free form: the geometric mean over matrices of ||pruned|| / ||dense||.
"""

from math import exp, log

import torch

from slimsearch.contracts import Term
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM


class WeightNorm(Term):
    def __init__(self) -> None:
        self._dense: dict[str, float] = {}

    def prepare(self, vlm: VLM, calibrated: Calibrated) -> None:
        self._dense = self._dense or _norms(vlm)  # the same for every part of the calibration

    def measure(self, vlm: VLM, calibrated: Calibrated) -> float:
        now = _norms(vlm)
        shares = [now[name] / dense for name, dense in self._dense.items() if dense > 0]
        return exp(sum(log(max(share, 1e-12)) for share in shares) / max(len(shares), 1))


def _norms(vlm: VLM) -> dict[str, float]:
    """Frobenius norm of every prunable matrix, in fp32."""
    norms = [
        torch.linalg.vector_norm(vlm.linear(matrix.name).weight, dtype=torch.float32)
        for matrix in vlm.matrices
    ]
    values = torch.stack(norms).tolist()
    return {matrix.name: value for matrix, value in zip(vlm.matrices, values, strict=True)}
