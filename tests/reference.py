"""Plain, slow and independent: what the solvers are held against. slimsearch imports none of it."""

import torch
from torch import Tensor

from slimsearch.surgery.hessian import Hessian

BLOCK = 128


def inverse_factor(matrix: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """U and the dead columns as published (Cholesky, inverse, Cholesky), in H's own precision."""
    H = matrix.clone()
    dead = H.diagonal() == 0
    mean = H.diagonal()[~dead].mean()
    H[dead, dead] = 1
    H.diagonal().add_(damping * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H))
    return torch.linalg.cholesky(inverse, upper=True), dead


def sparsegpt(
    weights: Tensor, upper: Tensor, level: float, *, published_count: bool = False
) -> tuple[Tensor, Tensor, float]:
    """One level, one column at a time (SparseGPT, algorithm 1): weights, mask, sum(err^2) / 2."""
    W = weights.clone()
    rows, columns = W.shape
    mask = torch.zeros_like(W, dtype=torch.bool)
    loss = torch.zeros((), dtype=W.dtype, device=W.device)
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        U = upper[start:end, start:end]
        scores = W[:, start:end].square() / U.diagonal().square()
        if published_count:
            threshold = scores.flatten().sort().values[int(scores.numel() * level)]
            chosen = scores <= threshold
        else:
            count = round(level * (rows * end)) - round(level * (rows * start))
            chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=W.device)
            chosen[scores.flatten().sort(stable=True).indices[:count]] = True
            chosen = chosen.view(scores.shape)
        mask[:, start:end] = chosen
        block, errors = W[:, start:end].clone(), torch.zeros_like(scores)
        for j in range(end - start):
            kept = block[:, j].clone()
            kept[chosen[:, j]] = 0
            errors[:, j] = (block[:, j] - kept) / U[j, j]
            block[:, j:] -= errors[:, j, None] * U[j, j:]
            block[:, j] = kept
        W[:, start:end] = block
        W[:, end:] -= errors @ upper[start:end, end:]
        loss += errors.square().sum() / 2
    return W, mask, float(loss)


def half_trace(change: Tensor, matrix: Tensor) -> float:
    change, matrix = change.double(), matrix.double()
    return float(((change @ matrix) * change).sum() / 2)


def by_definition(weights: Tensor, matrix: Tensor, mask: Tensor) -> Tensor:
    """What SparseGPT's left-to-right scheme must give for a mask, by solving, in float64.

    From left to right each weight is fixed: at 0 where it goes, else at its best value given the
    weights fixed before it, with those after it free: dW_free = -H_ff^-1 H_fb dW_before.
    """
    H, change = matrix.double(), torch.zeros_like(weights, dtype=torch.float64)
    for row in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            best = -torch.linalg.solve(H[j:, j:], H[j:, :j] @ change[row, :j])
            change[row, j] = -weights[row, j] if mask[row, j] else best[0]
    return weights.double() + change


def best_for_mask(weights: Tensor, matrix: Tensor, mask: Tensor) -> Tensor:
    """The best row [columns] of all with zeros at the mask: every other weight is free."""
    H, kept = matrix.double(), ~mask
    change = -weights.double()
    change[kept] = 0
    change[kept] = -torch.linalg.solve(H[kept][:, kept], H[kept][:, mask] @ change[mask])
    return weights.double() + change


def hessians(model, batches, names) -> dict[str, Hessian]:
    """X X^T from hooks on whole forward passes of the model as it stands, padding left out."""
    found = {name: Hessian.zeros(model.linear(name).in_features) for name in names}

    def add(name, inputs):
        found[name].matrix.add_(inputs.T @ inputs)
        found[name].tokens += len(inputs)

    for batch in batches:
        counts = batch.classes != 0
        hooks = [
            model.linear(name).register_forward_pre_hook(
                lambda _, given, name=name, counts=counts: add(
                    name, given[0].flatten(0, -2)[counts.flatten()].float()
                )
            )
            for name in names
        ]
        with torch.no_grad():
            model.decoder(**model.given(batch))
        for hook in hooks:
            hook.remove()
    return found
