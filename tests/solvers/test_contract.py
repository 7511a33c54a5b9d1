"""Every file in solvers/ against the contract of a solver."""

import pytest
import reference
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from slimsearch.errors import SettingsError, SolverError
from slimsearch.plugins import about, find, names
from slimsearch.surgery.hessian import Hessian

SOLVERS = names("solvers")
every_solver = pytest.mark.parametrize("name", SOLVERS)


def problem(rows: int, columns: int, tokens: int, seed: int = 0) -> tuple[Tensor, Hessian]:
    generator = torch.Generator().manual_seed(seed)
    hessian = Hessian.zeros(columns)
    mixing = torch.randn(columns, columns, generator=generator)
    hessian.add(torch.randn(tokens, columns, generator=generator) @ mixing)
    return torch.randn(rows, columns, generator=generator), hessian


def zeros(weights: Tensor) -> int:
    return int((weights == 0).sum())


def test_all_are_found():
    assert set(SOLVERS) >= {"sparsegpt", "wanda", "magnitude", "magnitude_row", "random"}
    assert all(about("solvers", name) for name in SOLVERS)


@every_solver
@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 300),
    levels=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
@example(rows=17, columns=145, levels=[0.1], seed=0)  # 246.5 or a little more, by the order
def test_zeros_are_counted_exactly(name, rows, columns, levels, seed):
    weights, hessian = problem(rows, columns, 2 * columns, seed)
    for level, pruned in zip(
        levels, find("solvers", name)().prune(weights, hessian, levels), strict=True
    ):
        assert zeros(pruned.weights) == round(level * weights.numel())


@every_solver
def test_error_is_the_half_trace_of_the_undamped_hessian(name):
    weights, hessian = problem(20, 200, 500)
    for pruned in find("solvers", name)().prune(weights, hessian, [0.0, 0.1, 0.5, 0.9, 1.0]):
        exact = reference.half_trace(pruned.weights - weights, hessian.matrix)
        assert pruned.error == pytest.approx(exact, rel=1e-4)


@every_solver
def test_level_0_keeps_and_level_1_takes_everything(name):
    weights, hessian = problem(5, 9, 20)
    none, everything = find("solvers", name)().prune(weights, hessian, [0.0, 1.0])
    assert torch.equal(none.weights, weights)
    assert none.error == 0
    assert not everything.weights.any()
    none.weights.zero_()
    assert weights.all(), "the result must not be the argument itself"


@every_solver
def test_arguments_are_left_alone_and_results_repeat(name):
    weights, hessian = problem(30, 150, 40)
    before, matrix = weights.clone(), hessian.matrix.clone()
    first = find("solvers", name)().prune(weights, hessian, [0.3, 0.7])
    again = find("solvers", name)().prune(weights, hessian, [0.3, 0.7])
    assert torch.equal(weights, before)
    assert torch.equal(hessian.matrix, matrix)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.weights, other.weights)
        assert one.error == other.error


@every_solver
def test_levels_in_any_order_and_twice(name):
    weights, hessian = problem(10, 140, 300)
    both = find("solvers", name)().prune(weights, hessian, [0.6, 0.2, 0.6])
    assert [zeros(pruned.weights) for pruned in both] == [840, 280, 840]


@every_solver
def test_bfloat16_weights_give_float32_results(name):
    weights, hessian = problem(30, 150, 300)
    rounded = weights.bfloat16()
    (pruned,) = find("solvers", name)().prune(rounded, hessian, [0.5])
    (expected,) = find("solvers", name)().prune(rounded.float(), hessian, [0.5])
    assert pruned.weights.dtype == torch.float32
    assert torch.equal(pruned.weights, expected.weights)
    assert zeros(pruned.weights) == 2250


@every_solver
def test_scale_of_the_hessian_changes_nothing(name):
    weights, hessian = problem(12, 140, 200)
    scaled = Hessian(hessian.matrix * 2.0**12, hessian.tokens)
    solver = find("solvers", name)()
    for one, other in zip(
        solver.prune(weights, hessian, [0.5]), solver.prune(weights, scaled, [0.5]), strict=True
    ):
        assert torch.equal(one.weights, other.weights)
        assert other.error == pytest.approx(one.error * 2.0**12)


@every_solver
def test_dead_columns_and_too_few_tokens(name):
    weights, hessian = problem(12, 140, 30)
    hessian.matrix[[3, 139]] = 0
    hessian.matrix[:, [3, 139]] = 0
    (pruned,) = find("solvers", name)().prune(weights, hessian, [0.5])
    assert zeros(pruned.weights) == 840
    assert torch.isfinite(pruned.weights).all()


@every_solver
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(name, value):
    weights, hessian = problem(5, 20, 60)
    unfit = Hessian(hessian.matrix.clone(), 60)
    unfit.matrix[3, 4] = unfit.matrix[4, 3] = value
    for level in (0.5, 1.0):
        with pytest.raises(SolverError, match="calibration inputs of this matrix are not finite"):
            find("solvers", name)().prune(weights, unfit, [level])
    weights[1, 2] = value
    with pytest.raises(SolverError, match="not finite"):
        find("solvers", name)().prune(weights, hessian, [0.5])


@every_solver
@pytest.mark.parametrize("keep", ["2:4", "1:4", "4:8"])
def test_keeps_n_of_m(name, keep):
    kept, group = map(int, keep.split(":"))
    weights, hessian = problem(7, 136, 300)
    (pruned,) = find("solvers", name)(keep=keep).prune(weights, hessian, [1 - kept / group])
    assert (pruned.weights.view(7, -1, group) != 0).sum(2).eq(kept).all()
    exact = reference.half_trace(pruned.weights - weights, hessian.matrix)
    assert pruned.error == pytest.approx(exact, rel=1e-4)


@every_solver
def test_what_cannot_be_is_refused(name):
    weights, hessian = problem(4, 6, 20)
    for level in (-0.1, 1.2, float("nan")):
        with pytest.raises(SettingsError, match="from 0 to 1"):
            find("solvers", name)().prune(weights, hessian, [level])
    with pytest.raises(SettingsError, match="not '2-4'"):
        find("solvers", name)(keep="2-4").prune(weights, hessian, [0.5])
    with pytest.raises(SettingsError, match="groups of 4"):
        find("solvers", name)(keep="2:4").prune(weights, hessian, [0.5])
    with pytest.raises(SettingsError, match=r"level of 0\.6"):
        find("solvers", name)(keep="1:2").prune(weights, hessian, [0.6])
