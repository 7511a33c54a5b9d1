"""The Triton kernels against the plain solve: on a GPU where there is one, else interpreted."""

from itertools import pairwise

import pytest
import reference
import torch
from torch import Tensor

pytest.importorskip("triton")

from slimsearch import obs_triton
from slimsearch.hessian import Hessian

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LEVELS = [0.0, 0.3, 0.5, 1.0]


def problem(rows: list[int], columns: int, seed: int = 0) -> tuple[list[Tensor], Hessian]:
    generator = torch.Generator().manual_seed(seed)
    hessian = Hessian.zeros(columns)
    mixing = torch.randn(columns, columns, generator=generator)
    hessian.add(torch.randn(2 * columns, columns, generator=generator) @ mixing)
    return [torch.randn(count, columns, generator=generator) for count in rows], hessian


def counts_of(rows: int, columns: int, level: float) -> list[int]:
    """As the plain solve counts: round(level * size) up to each block's end, less those before."""
    ends = [*range(0, columns, 128), columns]
    totals = [round(level * (rows * end)) for end in ends]
    return [after - before for before, after in pairwise(totals)]


def solve(matrices, upper, counts, **options):
    found = obs_triton.solve([m.to(DEVICE) for m in matrices], upper.to(DEVICE), counts, **options)
    return [(solved.cpu(), losses) for solved, losses in found]


@pytest.mark.parametrize(
    ("rows", "columns"), [(20, 128), (1, 129), (17, 40), (16, 1), (33, 300), (3, 700)]
)
def test_masks_and_weights_of_the_plain_solve(rows, columns):
    (weights,), hessian = problem([rows], columns)
    upper = hessian.factor(0.01).upper
    counts = [counts_of(rows, columns, level) for level in LEVELS]
    ((solved, losses),) = solve([weights], upper, [counts])
    for level, found, loss in zip(LEVELS, solved, losses, strict=True):
        plain, mask, wanted = reference.sparsegpt(weights, upper, level)
        assert torch.equal(found == 0, mask)
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
        assert loss == pytest.approx(wanted, rel=1e-4)


def test_matrices_of_one_input_together_are_each_alone():
    matrices, hessian = problem([20, 7, 70], 150)
    upper = hessian.factor(0.01).upper
    levels = [[0.5, 0.25], [0.5], [0.1, 0.4, 0.8]]
    counts = [
        [counts_of(len(matrix), 150, level) for level in some]
        for matrix, some in zip(matrices, levels, strict=True)
    ]
    for matrix, some, (solved, _) in zip(matrices, levels, solve(matrices, upper, counts),
                                         strict=True):  # fmt: skip
        for level, found in zip(some, solved, strict=True):
            plain, mask, _ = reference.sparsegpt(matrix, upper, level)
            assert torch.equal(found == 0, mask)
            torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("published", [False, True])
def test_equal_scores_go_in_the_order_of_their_index(published):
    """Weights of few values and a Hessian without correlations: nearly every score is a tie."""
    weights = torch.randint(-2, 3, (70, 140), generator=torch.Generator().manual_seed(1)).float()
    upper = Hessian(torch.eye(140), 200).factor(0.01).upper
    counts = [counts_of(70, 140, level) for level in LEVELS[1:3]]
    if published:
        counts = [[int(70 * 128 * x) + 1, int(70 * 12 * x) + 1] for x in LEVELS[1:3]]
    ((solved, _),) = solve([weights], upper, [counts], whole_ties=published)
    for level, found in zip(LEVELS[1:3], solved, strict=True):
        _, mask, _ = reference.sparsegpt(weights, upper, level, published_count=published)
        assert torch.equal(found, weights.masked_fill(mask, 0.0))


@pytest.mark.parametrize("keep", [(2, 4), (1, 4), (4, 8), (1, 2)])
def test_keeps_n_of_m_of_the_weights_as_mended_so_far(keep):
    kept, group = keep
    matrices, hessian = problem([18, 5], 136)
    upper = hessian.factor(0.01).upper
    counts = [[counts_of(len(m), 136, 1 - kept / group)] for m in matrices]
    for weights, (solved, losses) in zip(matrices, solve(matrices, upper, counts, keep=keep),
                                         strict=True):  # fmt: skip
        plain, loss = column_by_column(weights, upper, keep)
        assert torch.equal(solved[0] == 0, plain == 0)
        torch.testing.assert_close(solved[0], plain, rtol=1e-4, atol=1e-4)
        assert losses == [pytest.approx(loss, rel=1e-4)]
        assert (solved[0].view(len(weights), -1, group) != 0).sum(2).eq(kept).all()


def column_by_column(weights: Tensor, upper: Tensor, keep: tuple[int, int]) -> tuple[Tensor, float]:
    """N:M by SparseGPT's algorithm 1 over the whole width at once."""
    kept, group = keep
    W, loss = weights.clone(), 0.0
    mask = torch.zeros_like(W, dtype=torch.bool)
    for j in range(W.shape[1]):
        if j % group == 0:
            scores = (W[:, j : j + group] / upper.diagonal()[j : j + group]).square()
            goes = scores.sort(dim=1, stable=True).indices[:, : group - kept]
            mask[:, j : j + group].scatter_(1, goes, True)
        error = torch.where(mask[:, j], W[:, j], 0) / upper[j, j]
        W[:, j:] -= error[:, None] * upper[j, j:]
        W[:, j][mask[:, j]] = 0
        loss += float(error.square().sum()) / 2
    return W, loss
