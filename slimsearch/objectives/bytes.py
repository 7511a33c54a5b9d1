"""Bytes of the model on disk, with every pruned matrix as one bit a weight and its kept values.

A matrix of n weights of which k stayed takes n/8 + k times the width of the checkpoint's dtype: in
bf16 at half sparsity 9/16 of dense. One that is smaller dense counts dense, all else as it is.
"""

from math import ceil

from slimsearch.contracts import Term
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM


class Bytes(Term):
    is_cost = True

    def measure(self, vlm: VLM, calibrated: Calibrated) -> float:
        width = vlm.disk_dtype.itemsize
        total = width * sum(parameter.numel() for parameter in vlm.model.parameters())
        for matrix in vlm.matrices:
            kept = int(vlm.linear(matrix.name).weight.count_nonzero())
            total -= max(0, width * (matrix.size - kept) - ceil(matrix.size / 8))
        return float(total)
