"""SparseGPT against its definition in float64, and both backends against the plain solve."""

from itertools import combinations

import pytest
import reference
import torch
from torch import Tensor

from slimsearch.errors import SolverError
from slimsearch.solvers.sparsegpt import SparseGPT
from slimsearch.surgery import obs
from slimsearch.surgery.hessian import Hessian

BACKENDS = {"c": obs.solve, "torch": obs.solve_in_torch}
LEVELS = [0.3, 0.5, 0.8]
both_backends = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture
def solver(backend, monkeypatch):
    if backend == "c" and obs.backend() != "c":
        pytest.skip("no C compiler here")
    monkeypatch.setattr(obs, "solve", BACKENDS[backend])
    return SparseGPT()


def problem(rows: int, columns: int, tokens: int, seed: int = 0) -> tuple[Tensor, Hessian]:
    generator = torch.Generator().manual_seed(seed)
    hessian = Hessian.zeros(columns)
    mixing = torch.randn(columns, columns, generator=generator)
    hessian.add(torch.randn(tokens, columns, generator=generator) @ mixing)
    return torch.randn(rows, columns, generator=generator), hessian


def damped(hessian: Hessian, damping: float = 0.01) -> Tensor:
    matrix = hessian.matrix.double()
    return matrix + damping * matrix.diagonal().mean() * torch.eye(len(matrix)).double()


@both_backends
@pytest.mark.parametrize("columns", [1, 8, 40, 128])
def test_given_its_mask_every_row_is_what_the_definition_gives(solver, columns):
    weights, hessian = problem(6, columns, 3 * columns)
    (pruned,) = solver.prune(weights, hessian, [0.5])
    exact = reference.by_definition(weights, damped(hessian), pruned.weights == 0)
    torch.testing.assert_close(pruned.weights.double(), exact, rtol=1e-4, atol=1e-4)


@both_backends
def test_across_blocks_too(solver):
    weights, hessian = problem(3, 150, 400)
    (pruned,) = solver.prune(weights, hessian, [0.5])
    exact = reference.by_definition(weights, damped(hessian), pruned.weights == 0)
    torch.testing.assert_close(pruned.weights.double(), exact, rtol=1e-4, atol=1e-4)


@both_backends
def test_a_mask_of_the_first_columns_is_mended_optimally(solver):
    # Only there does left to right leave every kept weight free to make up for the others.
    weights, hessian = problem(1, 8, 30)
    weights[0, :3] /= 1000
    (pruned,) = solver.prune(weights, hessian, [3 / 8])
    mask = torch.arange(8) < 3
    assert torch.equal(pruned.weights[0] == 0, mask)
    best = reference.best_for_mask(weights[0], damped(hessian), mask)
    torch.testing.assert_close(pruned.weights[0].double(), best, rtol=1e-5, atol=1e-6)


@both_backends
@pytest.mark.parametrize("seed", range(5))
def test_brute_force_over_every_mask(solver, seed):
    weights, hessian = problem(1, 8, 30, seed)
    H = damped(hessian)

    def loss(row: Tensor) -> float:
        return reference.half_trace(row[None] - weights, H)

    one, four = solver.prune(weights, hessian, [1 / 8, 4 / 8])
    # A single weight: the score is its whole loss left to right, so the choice is the best one.
    singles = torch.eye(8, dtype=torch.bool)[:, None]
    losses = [loss(reference.by_definition(weights, H, mask)[0]) for mask in singles]
    assert loss(one.weights[0]) == pytest.approx(min(losses), rel=1e-4)
    # Several: no mask and no mending can do better than the best of all.
    masks = [
        torch.zeros(8).scatter(0, torch.tensor(x), 1).bool() for x in combinations(range(8), 4)
    ]
    best = min(loss(reference.best_for_mask(weights[0], H, mask)) for mask in masks)
    assert best <= loss(four.weights[0]) * (1 + 1e-5)


@both_backends
@pytest.mark.parametrize("shape", [(40, 128), (33, 300), (70, 700), (5, 1030), (1, 129)])
@pytest.mark.parametrize("published", [False, True])
def test_masks_and_weights_of_the_plain_solve(solver, shape, published):
    weights, hessian = problem(*shape, 2 * shape[1])
    solver = SparseGPT(reference_count=published)
    upper = hessian.factor(0.01).upper
    for level, pruned in zip(LEVELS, solver.prune(weights, hessian, LEVELS), strict=True):
        plain, mask, _ = reference.sparsegpt(weights, upper, level, published_count=published)
        assert torch.equal(pruned.weights == 0, mask)
        torch.testing.assert_close(pruned.weights, plain, rtol=1e-4, atol=1e-4)


@both_backends
def test_equal_scores_are_counted_exactly_and_in_order(solver):
    # Weights of few values and a Hessian without correlations: nearly every score is a tie.
    weights = torch.randint(-2, 3, (50, 140)).float()
    hessian = Hessian(torch.eye(140), 200)
    for level, pruned in zip(LEVELS, solver.prune(weights, hessian, LEVELS), strict=True):
        _, mask, _ = reference.sparsegpt(weights, hessian.factor(0.01).upper, level)
        assert torch.equal(pruned.weights, weights.masked_fill(mask, 0.0))


@both_backends
def test_sum_of_squared_errors_is_the_damped_half_trace(solver):
    weights, hessian = problem(20, 260, 400)
    upper = hessian.factor(0.1).upper
    counts = [[20 * 64, 20 * 64, 20 * 2]]
    (solved,), (loss,) = obs.solve(weights, upper, counts)
    assert loss == pytest.approx(reference.half_trace(solved - weights, damped(hessian, 0.1)), 1e-4)


@both_backends
def test_error_where_damping_is_nearly_all_of_the_loss(solver):
    weights, hessian = problem(20, 200, 4)
    (pruned,) = SparseGPT(damping=10.0).prune(weights, hessian, [0.02])
    exact = reference.half_trace(pruned.weights - weights, hessian.matrix)
    assert pruned.error == pytest.approx(exact, rel=1e-3)


@both_backends
def test_stacked_equals_separate(solver):
    weights, hessian = problem(40, 700, 900)
    stacked = solver.prune(weights, hessian, LEVELS)
    for level, together in zip(LEVELS, stacked, strict=True):
        (alone,) = solver.prune(weights, hessian, [level])
        assert torch.equal(together.weights == 0, alone.weights == 0)
        torch.testing.assert_close(together.weights, alone.weights, rtol=1e-4, atol=1e-5)
        assert together.error == pytest.approx(alone.error, rel=1e-5)


@both_backends
def test_order_of_rows_does_not_matter(solver):
    weights, hessian = problem(50, 260, 600)
    order = torch.randperm(50)
    (one,), (other,) = (solver.prune(w, hessian, [0.5]) for w in (weights, weights[order]))
    assert torch.equal(one.weights[order] == 0, other.weights == 0)
    torch.testing.assert_close(one.weights[order], other.weights, rtol=1e-4, atol=1e-5)


@both_backends
def test_scale_of_the_hessian_does_not_matter(solver):
    weights, hessian = problem(50, 260, 600)
    (one,) = solver.prune(weights, hessian, [0.5])
    (other,) = solver.prune(weights, Hessian(hessian.matrix * 1e-7 / 3, 600), [0.5])
    assert ((one.weights == 0) != (other.weights == 0)).float().mean() < 1e-3
    assert other.error == pytest.approx(one.error * 1e-7 / 3, rel=1e-4)


@both_backends
@pytest.mark.parametrize("first", [0, 60, 200])
def test_a_run_of_dead_columns_still_gives_the_exact_count(solver, first):
    weights, hessian = problem(10, 400, 600)
    dead = slice(first, first + 150)  # a block and more; the others give up as much
    hessian.matrix[dead] = 0
    hessian.matrix[:, dead] = 0
    low, half = solver.prune(weights, hessian, [0.2, 0.5])
    assert not half.weights[:, dead].any()
    assert (half.weights == 0).sum() == 2000
    assert (low.weights == 0).sum() == 1500, "dead columns go in any case"


@both_backends
def test_dead_columns_are_as_if_not_there(solver):
    weights, hessian = problem(10, 100, 300)
    wide, matrix = torch.zeros(10, 120), torch.zeros(120, 120)
    wide[:, 20:], matrix[20:, 20:] = weights, hessian.matrix
    (narrow,) = solver.prune(weights, hessian, [0.4])
    (pruned,) = solver.prune(wide, Hessian(matrix, 300), [0.5])  # 200 dead and 400 live
    torch.testing.assert_close(pruned.weights[:, 20:], narrow.weights)


@both_backends
def test_n_of_m_is_chosen_from_the_weights_as_mended_so_far(solver):
    weights, hessian = problem(9, 136, 300)
    (pruned,) = SparseGPT(keep="2:4").prune(weights, hessian, [0.5])
    mask, H = pruned.weights == 0, damped(hessian)
    exact = reference.by_definition(weights, H, mask)
    torch.testing.assert_close(pruned.weights.double(), exact, rtol=1e-4, atol=1e-4)
    # The state before a group: mend by the masks of the earlier groups alone.
    upper = reference.inverse_factor(hessian.matrix.double(), 0.01)[0]
    before = mask.clone()
    before[:, 60:] = False
    scores = (reference.by_definition(weights, H, before) / upper.diagonal())[:, 60:64].square()
    assert torch.equal(
        scores.argsort(1)[:, :2].sort(1).values, mask[:, 60:64].nonzero()[:, 1].view(9, 2)
    )


def test_raised_damping_still_solves():
    weights, hessian = problem(10, 60, 200)
    hessian.matrix.diagonal().sub_(0.05 * hessian.matrix.diagonal().mean())
    assert hessian.factor(0.01).damping > 0.01
    (pruned,) = SparseGPT().prune(weights, hessian, [0.5])
    assert torch.isfinite(pruned.weights).all()


def test_weights_that_are_not_finite_are_refused():
    weights, hessian = problem(3, 8, 20)
    weights[1, 2] = float("nan")
    with pytest.raises(SolverError, match="weights of this matrix"):
        SparseGPT().prune(weights, hessian, [0.5])


def test_mending_beats_not_mending():
    weights, hessian = problem(30, 200, 400)
    (pruned,) = SparseGPT().prune(weights, hessian, [0.5])
    masked = weights * (pruned.weights != 0)
    assert pruned.error < reference.half_trace(masked - weights, hessian.matrix)
