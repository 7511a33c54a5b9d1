"""The optimal brain surgeon's update, column by column in blocks (SparseGPT, algorithm 1).

Several levels are solved at once as extra rows: they share the factor, every product and every
step. Done by obs_kernel.c where the weights are on a CPU and a compiler is found, by
obs_triton.py where they are on a GPU and triton is installed, else in torch.

Legend: W weights, U upper Cholesky factor of the inverse Hessian, E errors (w_j - q_j) / U_jj.
"""

from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from slimsearch.surgery import obs_kernel
from slimsearch.surgery.column_blocks import BLOCK, caught_up
from slimsearch.surgery.masks import lowest, lowest_of_groups

LEAF = 8  # columns updated one by one; between leaves there are products


def backend(device: str = "cpu") -> str:
    """What solves on a kind of device: "c", "triton" or "torch"."""
    if device == "cuda":
        return "torch" if _fused() is None else "triton"
    return "c" if device == "cpu" and obs_kernel.load() is not None else "torch"


def solve_together(
    matrices: Sequence[Tensor],
    upper: Tensor,
    counts: Sequence[Sequence[Sequence[int]]],
    *,
    whole_ties: bool = False,
    keep: tuple[int, int] | None = None,
) -> list[tuple[Tensor, list[float]]]:
    """`solve` for matrices that share an input; counts[matrix][level][block]."""
    fused = _fused() if upper.device.type == "cuda" else None
    if fused is not None:
        return fused.solve(matrices, upper, counts, whole_ties=whole_ties, keep=keep)
    return [
        solve(weights, upper, some, whole_ties=whole_ties, keep=keep)
        for weights, some in zip(matrices, counts, strict=True)
    ]


def solve(
    weights: Tensor,
    upper: Tensor,
    counts: Sequence[Sequence[int]],
    *,
    whole_ties: bool = False,
    keep: tuple[int, int] | None = None,
) -> tuple[Tensor, list[float]]:
    """Prunes `counts[level][block]` weights of every block of 128 columns and mends the others.

    weights [rows, columns] fp32, upper [columns, columns] fp32. Gives the solved weights
    [levels, rows, columns] and for each level sum(E^2) / 2. With `whole_ties` all weights whose
    score equals the highest chosen one go too, as with the published `<=` threshold. With
    `keep` (N, M) each group of M columns of a row keeps N, whatever the counts say.
    """
    library = obs_kernel.load() if weights.device.type == "cpu" else None
    if library is None:
        return solve_in_torch(weights, upper, counts, whole_ties=whole_ties, keep=keep)
    return obs_kernel.solve(library, weights, upper, counts, whole_ties=whole_ties, keep=keep)


def solve_in_torch(
    weights: Tensor,
    upper: Tensor,
    counts: Sequence[Sequence[int]],
    *,
    whole_ties: bool = False,
    keep: tuple[int, int] | None = None,
) -> tuple[Tensor, list[float]]:
    """The same on any device."""
    rows, columns = weights.shape
    levels = len(counts)
    solved = weights.repeat(levels, 1)  # [levels * rows, columns]
    losses = torch.zeros(levels, dtype=torch.float64, device=weights.device)
    for start, end, errors in caught_up(solved, upper):
        # Transposed, so that a column is contiguous: [width, levels * rows].
        W, U = solved[:, start:end].T.contiguous(), upper[start:end, start:end]
        if keep:
            mask = torch.empty_like(W, dtype=torch.bool)  # _mend chooses on its way
        else:
            mask = _choose(W, U, [level[start // BLOCK] for level in counts], whole_ties)
        E = _mend(W, U, mask, keep)
        solved[:, start:end].copy_(W.T)
        errors.copy_(E.T)
        losses += E.square_().view(-1, levels, rows).sum((0, 2), dtype=torch.float64)
    return solved.view(levels, rows, columns), (losses / 2).tolist()


@cache
def _fused() -> ModuleType | None:
    """The kernels for a GPU, or None where triton is not installed."""
    try:
        from slimsearch.surgery import obs_triton
    except ImportError:
        return None
    return obs_triton


def _choose(W: Tensor, U: Tensor, quotas: Sequence[int], whole_ties: bool) -> Tensor:
    """True where a weight goes, [width, levels * rows]: the lowest (w / U_jj)^2 of each level."""
    scores = (W / U.diagonal()[:, None]).square_()
    masks = []
    for part, count in zip(scores.chunk(len(quotas), dim=1), quotas, strict=True):
        # As [rows, width], so that equal scores go in the order of the untransposed matrix.
        level = part.T.contiguous()
        if whole_ties:
            masks.append(level <= level.flatten().kthvalue(min(count, level.numel())).values)
        else:
            masks.append(lowest(level, count))
    return torch.cat(masks).T.contiguous()


def _mend(W: Tensor, U: Tensor, mask: Tensor, keep: tuple[int, int] | None) -> Tensor:
    """Solves a block W [width, rows] in place, pruned weights at 0, and gives E, of W's shape.

    Halves the columns down to leaves; the left half's errors reach the right in one product.
    """
    width, leaf = W.shape[0], max(LEAF, keep[1] if keep else 0)
    if width > leaf:
        half = -(-width // (2 * leaf)) * leaf  # whole leaves, so that no N:M group is split
        first = _mend(W[:half], U[:half, :half], mask[:half], keep)
        W[half:].addmm_(U[:half, half:].T, first, alpha=-1)
        second = _mend(W[half:], U[half:, half:], mask[half:], keep)
        return torch.cat((first, second))
    E = torch.empty_like(W)
    for j in range(width):
        if keep and j % keep[1] == 0:
            group = slice(j, j + keep[1])
            scores = (W[group] / U.diagonal()[group, None]).square_()
            mask[group] = lowest_of_groups(scores.T, keep).T
        torch.mul(W[j] / U[j, j], mask[j], out=E[j])
        W[j + 1 :].addr_(U[j, j + 1 :], E[j], alpha=-1)
        W[j].masked_fill_(mask[j], 0.0)
    return E
