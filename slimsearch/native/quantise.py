"""int8 weights with the solver's error feedback: what rounding a column loses, later ones mend.

As in SparseGPT's joint step, with the mask given: a weight that was pruned stays zero, and what the
feedback would have put there is an error to be passed on as well.

Legend: W weights turned, U upper Cholesky factor of the inverse Hessian, E errors
(w_j - q_j) / U_jj.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from slimsearch.graphs.int8 import STEPS, row_scale
from slimsearch.model.batch import Batch
from slimsearch.model.vlm import VLM
from slimsearch.native.parts import Steps
from slimsearch.surgery.hessian import Factor, full_precision
from slimsearch.surgery.walk import walk

BLOCK = 128  # columns whose errors reach those behind them in one product


@torch.no_grad()
def quantise(
    vlm: VLM,
    batches: Sequence[Batch],
    tokens: str,
    damping: float,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Steps]:
    """Every matrix of a pruned model in whole numbers; each block sees what earlier ones give."""
    found: dict[str, Steps] = {}
    before: dict[str, Tensor] = {}
    try:
        for stop in walk(vlm, batches, tokens, pruned_inputs=True):
            factor = stop.hessian.factor(damping)
            for name in stop.matrices:
                weight = vlm.linear(name).weight
                before[name] = weight.detach().clone()
                found[name] = solve(before[name], factor)
                weight.copy_(found[name].steps * found[name].scale.unsqueeze(1))
                advance()
    finally:
        for name, weight in before.items():
            vlm.linear(name).weight.copy_(weight)
    return found


def solve(weights: Tensor, factor: Factor) -> Steps:
    """One matrix [rows, columns]: the steps that lose least, zeros where it has zeros."""
    scale = row_scale(weights)
    W = weights.float().T.contiguous()
    kept, U = W != 0, factor.upper
    steps = torch.empty_like(W, dtype=torch.int8)
    columns = len(W)
    with full_precision():
        for start in range(0, columns, BLOCK):
            end = min(start + BLOCK, columns)
            E = torch.empty_like(W[start:end])
            for j in range(start, end):
                whole = (W[j] / scale).round_().clamp_(-STEPS, STEPS).mul_(kept[j])
                steps[j] = whole.to(torch.int8)
                torch.div(W[j] - whole * scale, U[j, j], out=E[j - start])
                W[j + 1 : end].addr_(U[j, j + 1 : end], E[j - start], alpha=-1)
            W[end:].addmm_(U[start:end, end:].T, E, alpha=-1)
    return Steps(steps.T.contiguous(), scale)
