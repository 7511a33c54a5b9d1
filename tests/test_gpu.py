"""What needs a CUDA device (pytest -m gpu): the kernels against torch, at 7B's shapes too."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from slimsearch.api import runs
from slimsearch.solvers.magnitude import Magnitude
from slimsearch.solvers.sparsegpt import SparseGPT
from slimsearch.surgery import obs
from slimsearch.surgery.hessian import Hessian
from slimsearch.surgery.level_store import LevelStore, fill

pytestmark = pytest.mark.gpu
LEVELS = [0.4, 0.45, 0.5, 0.55, 0.6]


def problem(rows: int, columns: int, tokens: int) -> tuple[Tensor, Hessian]:
    """Weights and correlated inputs whose columns differ in size, on the device."""
    generator = torch.Generator("cuda").manual_seed(0)
    hessian = Hessian.zeros(columns, "cuda")
    mixing = torch.randn(columns, columns, generator=generator, device="cuda") / columns**0.5
    sizes = torch.randn(columns, generator=generator, device="cuda").exp()
    inputs = torch.randn(tokens, columns, generator=generator, device="cuda")
    hessian.add(inputs @ mixing * sizes)
    return torch.randn(rows, columns, generator=generator, device="cuda"), hessian


def same(found: Tensor, wanted: Tensor, most_apart: float = 1e-4) -> None:
    """Masks but for a few ties of rounding, and values in the rows where the masks agree."""
    other = (found == 0) != (wanted == 0)
    assert float(other.float().mean()) <= most_apart
    rows = ~other.any(dim=1)
    assert rows.any()
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found[rows] / scale, wanted[rows] / scale, rtol=1e-3, atol=1e-4)


def test_the_kernels_are_what_solves():
    assert obs.backend("cuda") == "triton"


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(1, 1), (1, 129), (17, 40), (333, 1030), (4096, 4096), (4096, 11008), (11008, 4096)],
)
def test_masks_and_values_of_the_solve_in_torch(rows, columns):
    weights, hessian = problem(rows, columns, columns + 300)
    upper = hessian.factor(0.01).upper
    ends = [min(start + 128, columns) - start for start in range(0, columns, 128)]
    counts = [[round(level * rows * width) for width in ends] for level in LEVELS]
    ((found, losses),) = obs.solve_together([weights], upper, [counts])
    wanted, expected = obs.solve_in_torch(weights, upper, counts)
    for mine, other, wide in zip(found, wanted, counts, strict=True):
        same(mine, other)
        assert int((mine == 0).sum()) == sum(wide)
    assert losses == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("keep", ["2:4", "4:8", "1:4"])
def test_n_of_m_in_every_group(keep):
    kept, group = map(int, keep.split(":"))
    weights, hessian = problem(512, 1024, 1500)
    (pruned,) = SparseGPT(keep=keep).prune(weights, hessian, [1 - kept / group])
    assert (pruned.weights.view(512, -1, group) != 0).sum(2).eq(kept).all()
    counts = [[0] * 8]
    wanted, _ = obs.solve_in_torch(weights, hessian.factor(0.01).upper, counts, keep=(kept, group))
    same(pruned.weights, wanted[0], most_apart=1e-3)


@pytest.mark.parametrize("reference_count", [False, True])
def test_a_gpu_prunes_as_a_cpu_does(reference_count):
    weights, hessian = problem(300, 700, 900)
    beside = Hessian(hessian.matrix.cpu(), hessian.tokens)
    solver = SparseGPT(reference_count=reference_count)
    for mine, other in zip(
        solver.prune(weights, hessian, LEVELS),
        solver.prune(weights.cpu(), beside, LEVELS),
        strict=True,
    ):
        same(mine.weights.cpu(), other.weights, most_apart=1e-3)
        assert mine.error == pytest.approx(other.error, rel=1e-3)


def test_more_weights_than_31_bits_can_count():
    """Rows of many levels, one below the other: the last ones are solved like the first."""
    weights, hessian = problem(20000, 11008, 12000)
    levels = [0.3 + 0.04 * n for n in range(10)]  # 2.2e9 weights in all
    last = SparseGPT().prune(weights, hessian, levels)[-1].weights
    torch.cuda.empty_cache()
    (alone,) = SparseGPT().prune(weights, hessian, levels[-1:])
    same(last, alone.weights)


def test_short_inputs_are_summed_in_full():
    inputs = torch.randn(5000, 512, device="cuda").bfloat16()
    hessian = Hessian.zeros(512, "cuda")
    hessian.add(inputs)
    exact = (inputs.double().T @ inputs.double()).float()
    torch.testing.assert_close(hessian.matrix, exact, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("where", ["gpu", "memory", "disk"])
def test_a_store_stitches_the_same_wherever_it_is(load, llava, batches, tmp_path, where):
    model = load(llava)
    levels = {m.name: (0.3, 0.6) for m in model.matrices}
    kept = LevelStore(model)
    fill(kept, model, batches, levels, Magnitude(), "both", lambda: None, tmp_path)
    kept.stitch(model, dict.fromkeys(levels, 0.6))
    wanted = {name: model.linear(name).weight.clone() for name in levels}
    kept.restore(model)
    model.model.to("cuda")
    model.device = torch.device("cuda")
    store = LevelStore(model, where)
    store.load(tmp_path)
    assert store.stitch(model, dict.fromkeys(levels, 0.6)) == len(levels)
    for name, weights in wanted.items():
        assert model.linear(name).weight.is_cuda
        assert torch.equal(model.linear(name).weight.cpu(), weights)


def test_a_search_on_a_gpu(small, tmp_path):
    found = runs.search(replace(small, device="cuda", dtype="auto", out=str(tmp_path / "run")))
    assert found.sparsity == pytest.approx(0.5, abs=0.01)
    assert (found.model / "model.safetensors").is_file()
