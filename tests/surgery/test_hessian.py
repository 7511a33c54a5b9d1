"""The factor against float64, the ladder, and what a Hessian refuses."""

import pytest
import reference
import torch

from slimsearch.errors import SolverError
from slimsearch.surgery import hessian as module
from slimsearch.surgery.hessian import Hessian


def calibrated(columns: int, tokens: int, seed: int = 0, scale: float = 1.0) -> Hessian:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    hessian = Hessian.zeros(columns)
    hessian.add(scale * torch.randn(tokens, columns, generator=generator) @ mixing)
    return hessian


def exact_factor(matrix: torch.Tensor, damping: float) -> torch.Tensor:
    return reference.inverse_factor(matrix.double(), damping)[0]


def test_sums_all_tokens_in_fp32(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    inputs = torch.randn(40, 12).bfloat16()
    hessian = Hessian.zeros(12)
    hessian.add(inputs[:25])
    hessian.add(inputs[25:])
    assert hessian.tokens == 40
    assert hessian.matrix.dtype == torch.float32
    exact = inputs.double().T @ inputs.double()
    torch.testing.assert_close(hessian.matrix.double(), exact, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(hessian.column_norms, inputs.float().norm(dim=0))


@pytest.mark.parametrize("columns", [1, 2, 130, 256, 257, 700])
def test_factor_is_the_upper_cholesky_factor_of_the_damped_inverse(columns):
    hessian = calibrated(columns, 2 * columns + 10)
    factor = hessian.factor(0.01)
    assert factor.damping == 0.01
    assert torch.equal(factor.upper, factor.upper.triu())
    exact = exact_factor(hessian.matrix, 0.01)
    error = (factor.upper.double() - exact).norm() / exact.norm()
    assert error < 1e-5


def test_factor_is_no_less_exact_than_the_published_route():
    """On the whole: which of the two rounds better in a single case is chance."""
    shares = []
    for seed in range(8):
        hessian = calibrated(256, 150, seed)
        exact = exact_factor(hessian.matrix, 0.01)
        published = reference.inverse_factor(hessian.matrix, 0.01)[0]
        ours = hessian.factor(0.01).upper
        shares.append((ours.double() - exact).norm() / (published.double() - exact).norm())
    assert torch.stack(shares).log().mean() <= 0


def test_dead_columns_leave_the_others_alone():
    whole, dead = calibrated(20, 60), torch.zeros(24, dtype=torch.bool)
    dead[[0, 7, 8, 23]] = True
    matrix = torch.zeros(24, 24)
    matrix[torch.outer(~dead, ~dead)] = whole.matrix.flatten()
    factor = Hessian(matrix, 60).factor(0.01)
    assert torch.equal(factor.dead, dead)
    torch.testing.assert_close(factor.upper[~dead][:, ~dead], whole.factor(0.01).upper)
    assert not factor.upper[dead][:, ~dead].any()
    assert not factor.upper[~dead][:, dead].any()


def test_all_columns_dead():
    hessian = Hessian.zeros(5)
    hessian.add(torch.zeros(3, 5))
    factor = hessian.factor(0.01)
    assert factor.dead.all()
    assert torch.equal(factor.upper, torch.eye(5))


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_free_of_scale(scale):
    hessian = calibrated(50, 90)
    scaled = Hessian(hessian.matrix * scale, 90).factor(0.01).upper
    assert torch.equal(scaled * scale**0.5, hessian.factor(0.01).upper)


def test_fewer_tokens_than_columns():
    factor = calibrated(300, 20).factor(0.01)
    assert factor.damping == 0.01
    assert torch.isfinite(factor.upper).all()


def test_ladder_raises_the_damping_and_says_so():
    hessian = calibrated(30, 60)
    hessian.matrix.diagonal().sub_(0.05 * hessian.matrix.diagonal().mean())
    lowest = torch.linalg.eigvalsh(hessian.matrix.double())[0]
    assert lowest < 0
    factor = hessian.factor(0.0)
    assert factor.damping == 0.1
    assert factor.added == pytest.approx(0.1 * float(hessian.matrix.diagonal().mean()))
    exact = exact_factor(hessian.matrix, 0.1)
    torch.testing.assert_close(factor.upper.double(), exact, rtol=1e-3, atol=1e-4)


def test_damping_above_the_ladder_is_tried_too():
    assert calibrated(10, 30).factor(25.0).damping == 25.0


def test_hopeless_hessians_are_refused():
    matrix = torch.eye(4)
    matrix[0, 1] = matrix[1, 0] = 100
    with pytest.raises(SolverError, match="indefinite up to a damping of 10"):
        Hessian(matrix, 4).factor(0.01)
    with pytest.raises(SolverError, match="No calibration token"):
        Hessian.zeros(4).factor(0.01)
    for bad in (float("nan"), float("inf")):
        hessian = Hessian.zeros(4)
        hessian.add(torch.tensor([[1.0, 2.0, bad, 0.0]]))
        with pytest.raises(SolverError, match="not finite"):
            hessian.factor(0.01)


def test_factors_are_kept_until_more_tokens_come():
    hessian = calibrated(10, 30)
    first = hessian.factor(0.01)
    assert hessian.factor(0.01) is first
    assert hessian.factor(0.1) is not first
    hessian.add(torch.randn(5, 10))
    assert hessian.factor(0.01) is not first


@pytest.mark.parametrize("columns", [3, module.STRIPE, 2 * module.STRIPE + 9])
def test_half_trace(columns):
    hessian, change = calibrated(columns, 40), torch.randn(6, columns)
    exact = reference.half_trace(change, hessian.matrix)
    assert hessian.half_trace(change) == pytest.approx(exact, rel=1e-5)
    assert hessian.half_trace(torch.zeros(6, columns)) == 0


def test_full_precision_puts_back_what_was_set():
    torch.set_float32_matmul_precision("high")
    try:
        with module.full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_following_is_the_ridge_regression_onto_what_dense_inputs_gave():
    """min |V X - W X'|^2 + ridge * mean(diag H) |V - W|^2, solved by least squares in float64."""
    torch.manual_seed(1)
    dense, inputs, weights = torch.randn(60, 7), torch.randn(60, 7), torch.randn(5, 7)
    inputs = dense + 0.3 * inputs
    hessian = Hessian.zeros(7)
    for start in (0, 20):
        some = slice(start, start + 20 if start == 0 else 60)
        hessian.add(inputs[some])
        hessian.add_drift(dense[some], inputs[some])
    added = 0.5 * (inputs.double().square().sum(0)).mean()
    stacked = torch.cat([inputs.double(), added.sqrt() * torch.eye(7).double()])
    wanted = torch.cat([dense.double(), added.sqrt() * torch.eye(7).double()]) @ weights.double().T
    expected = torch.linalg.lstsq(stacked, wanted).solution.T
    assert torch.allclose(hessian.follow(weights, 0.5).double(), expected, atol=1e-4)


def test_there_is_nothing_to_follow_without_drift():
    torch.manual_seed(1)
    inputs, weights = torch.randn(60, 7), torch.randn(5, 7)
    hessian = Hessian.zeros(7)
    hessian.add(inputs)
    assert hessian.follow(weights, 1.0) is weights
    hessian.add_drift(inputs, inputs)
    assert torch.equal(hessian.follow(weights, 1.0), weights)
    assert torch.equal(hessian.follow(weights, 1e9), weights)


def test_what_some_tokens_drift_is_taken_to_be_what_all_do():
    torch.manual_seed(1)
    dense, weights = torch.randn(60, 7), torch.randn(5, 7)
    inputs = dense + 0.3 * torch.randn(60, 7)
    whole, part = Hessian.zeros(7), Hessian.zeros(7)
    for hessian in (whole, part):
        hessian.add(inputs)
        hessian.add(inputs)
        hessian.add_drift(dense, inputs)
    whole.add_drift(dense, inputs)
    assert torch.allclose(part.follow(weights, 0.5), whole.follow(weights, 0.5), atol=1e-6)


@pytest.mark.parametrize("columns", [module.LEAST + 1, 2 * module.LEAST + 77])
def test_what_is_added_by_halves_is_the_whole_product(columns):
    torch.manual_seed(1)
    inputs = torch.randn(300, columns)
    hessian = Hessian.zeros(columns)
    hessian.add(inputs)
    expected = inputs.double().T @ inputs.double()
    assert torch.allclose(hessian.matrix.double(), expected, atol=1e-3)
    hessian.add(inputs)
    assert torch.allclose(hessian.matrix.double(), 2 * expected, atol=2e-3)
