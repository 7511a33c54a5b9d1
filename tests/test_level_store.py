"""The level store keeps what solvers gave, and an exact prune is what it says it is."""

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimsearch.contracts import Pruned
from slimsearch.errors import RunError, SolverError
from slimsearch.exact import prune_exactly
from slimsearch.level_store import LevelStore, fill, pack
from slimsearch.solvers.magnitude import Magnitude
from slimsearch.solvers.sparsegpt import SparseGPT


@settings(deadline=None)
@given(
    rows=st.integers(1, 9), columns=st.integers(1, 21), share=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), seed=st.integers(0, 99),
)  # fmt: skip
def test_what_is_packed_comes_out_again(rows, columns, share, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(rows, columns, generator=generator)
    weights[torch.rand(rows, columns, generator=generator) < share] = 0
    packed = pack(Pruned(weights, 1.5), dtype)
    assert torch.equal(packed.expand(), weights.to(dtype))
    assert packed.error == 1.5
    kept = int((weights.to(dtype) != 0).sum())
    assert packed.bytes == -(-rows * columns // 8) + kept * dtype.itemsize


def test_all_or_nothing_packs_too():
    for weights in (torch.zeros(3, 5), torch.ones(3, 5)):
        assert torch.equal(pack(Pruned(weights, 0.0), torch.float32).expand(), weights)


def test_a_stitched_model_holds_what_the_solver_gave(seen, batches):
    """Solved again here from Hessians of plain forward passes."""
    model = seen[0]
    store, solver = LevelStore(model), SparseGPT()
    levels = {m.name: (0.0, 0.3, 0.6) for m in model.matrices}
    fill(store, model, batches, levels, solver, "both", lambda: None)
    hessians = reference.hessians(model, batches, [m.name for m in model.matrices])
    for level in (0.3, 0.6):
        chosen = {m.name: level for m in model.matrices}
        assert store.stitch(model, chosen) == 14
        assert store.stitch(model, chosen) == 0
        for matrix in model.matrices:
            (wanted,) = solver.prune(store.dense(matrix.name), hessians[matrix.name], [level])
            found = model.linear(matrix.name).weight
            assert int((found == 0).sum()) == round(level * matrix.size)
            assert torch.allclose(found, wanted.weights, rtol=1e-3, atol=1e-4)
            assert store.error(matrix.name, level) == pytest.approx(wanted.error, rel=1e-3)
    assert store.error("blocks.0.q", 0.0) == 0.0
    assert store.stitch(model, {"blocks.1.up": 0.3}) == 14
    store.restore(model)
    for matrix in model.matrices:
        assert torch.equal(model.linear(matrix.name).weight, store.dense(matrix.name))


def test_a_store_comes_back_from_its_folder(seen, batches, tmp_path):
    model, store = seen[0], LevelStore(seen[0])
    levels = {m.name: (0.123456, 0.5, 1.0) for m in model.matrices}
    fill(store, model, batches, levels, Magnitude(), "both", lambda: None)
    store.save(tmp_path / "levels")
    assert sorted(f.name for f in (tmp_path / "levels").iterdir()) == [
        "0000.safetensors", "0001.safetensors"]  # fmt: skip
    again = LevelStore(model)
    again.load(tmp_path / "levels")
    assert again.bytes == store.bytes
    for level in (0.123456, 0.5, 1.0):
        chosen = {m.name: level for m in model.matrices}
        store.stitch(model, chosen)
        one = {m.name: model.linear(m.name).weight.clone() for m in model.matrices}
        store.restore(model)
        again.stitch(model, chosen)
        assert all(torch.equal(model.linear(name).weight, w) for name, w in one.items())
        again.restore(model)
        assert all(again.error(n, level) == store.error(n, level) for n in chosen)


def test_a_level_that_is_not_there(seen):
    store = LevelStore(seen[0])
    with pytest.raises(RunError, match=r"no blocks\.0\.q at level 0\.3"):
        store.stitch(seen[0], {"blocks.0.q": 0.3})


def test_levels_that_differ_by_rounding_are_one(seen, batches):
    store = LevelStore(seen[0])
    fill(store, seen[0], batches, {"blocks.0.q": (0.1 + 0.2,)}, Magnitude(), "both", lambda: None)
    assert store.stitch(seen[0], {"blocks.0.q": 0.3}) == 1
    store.restore(seen[0])


def test_sparsity_is_counted_on_the_model(seen, batches):
    model, store = seen[0], LevelStore(seen[0])
    prune_exactly(store, model, batches, {"blocks.1.down": 0.5, "blocks.0.q": 0.25}, Magnitude(),
                  "both")  # fmt: skip
    shares = store.sparsities(model)
    assert shares["blocks.1.down"] == 0.5
    assert shares["blocks.0.q"] == 0.25
    assert sum(share > 0 for share in shares.values()) == 2
    total = sum(m.size for m in model.matrices)
    assert store.sparsity(model) == (0.5 * 32 * 48 + 0.25 * 32 * 32) / total


def test_a_probe_stops_after_so_many_blocks(seen, batches):
    store = LevelStore(seen[0])
    levels = {m.name: (0.5,) for m in seen[0].matrices}
    fill(store, seen[0], batches, levels, Magnitude(), "both", lambda: None, blocks=1)
    store.stitch(seen[0], {"blocks.0.down": 0.5})
    with pytest.raises(RunError):
        store.stitch(seen[0], {"blocks.1.q": 0.5})


def test_a_matrix_without_a_solution_fails_whoever_asks_for_it(seen, batches, tmp_path):
    """Before and after the store was on disk; the others are as they were."""
    model = seen[0]

    class Failing(Magnitude):
        def prune(self, weights, hessian, levels):
            if weights is store.dense("blocks.1.down"):
                raise SolverError("stays indefinite")
            return super().prune(weights, hessian, levels)

    store = LevelStore(model)
    fill(store, model, batches, {m.name: (0.5,) for m in model.matrices}, Failing(), "both",
         lambda: None)  # fmt: skip
    store.save(tmp_path / "levels")
    again = LevelStore(model)
    again.load(tmp_path / "levels")
    for found in (store, again):
        with pytest.raises(SolverError, match=r"blocks\.1\.down: stays indefinite"):
            found.stitch(model, {"blocks.1.down": 0.5})
        assert found.stitch(model, {"blocks.0.down": 0.5, "blocks.1.gate": 0.5}) == 2
        found.restore(model)
