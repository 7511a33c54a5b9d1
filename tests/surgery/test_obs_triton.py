"""The Triton kernels against the plain solve: on a GPU where there is one, else interpreted."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import reference
import torch
from torch import Tensor

pytest.importorskip("triton")

from slimsearch.surgery import obs_triton
from slimsearch.surgery.hessian import Hessian

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


COMPILED = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from slimsearch.surgery import obs_triton

POINTERS = {"solved": "fp32", "errors": "fp32", "upper": "fp32", "squares": "fp32",
            "equal_up_to": "i64"}
NUMBERS = {"columns", "start", "width", "stride", "rows", "block", "blocks"}

def compiled(kernel, warps, **constants):
    kinds, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        kinds[name] = "i32" if name in NUMBERS else "*" + POINTERS.get(name, "i32")
        if name in constants:
            kinds[name] = "constexpr"
        elif name not in ("block", "blocks"):  # as at 7B, where all are multiples of 16
            attributes[place,] = [["tt.divisibility", 16]]
    known = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, kinds, known, attributes)
    built = triton.compile(source, GPUTarget("cuda", 90, 32), {"num_warps": warps})
    return built.asm["ttgir"], built.asm["ptx"]

size, listed = {"BLOCK": obs_triton.BLOCK}, {"BLOCK": obs_triton.BLOCK, "LISTED": obs_triton.LISTED}
for first, (shift, bits) in enumerate(obs_triton.DIGITS[:2]):
    compiled(obs_triton._count_kernel, 8, SHIFT=shift, BITS=bits, BINS=obs_triton.BINS, **listed)
    compiled(obs_triton._pick_kernel, 4, FIRST=not first, SHIFT=shift, BINS=obs_triton.BINS)
compiled(obs_triton._equal_kernel, 8, **listed)
for ties, keep, group in ((False, 0, 1), (True, 0, 1), (False, 2, 4)):
    laid_out, ptx = compiled(
        obs_triton._mend_kernel, 4, WHOLE_TIES=ties, KEEP=keep, GROUP=group, TILE=obs_triton.TILE,
        **size,
    )
    assert "sizePerThread = [1, 4], threadsPerWarp = [1, 32], warpsPerCTA = [4, 1]" in laid_out
    assert ".target sm_90" in ptx
"""


def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path):
    """For an H100 or H200; a row lies in one warp, so that its sums need no other."""
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILED], capture_output=True, text=True,
        check=False, env=clean | {"TRITON_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
