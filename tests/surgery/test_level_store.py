"""The level store keeps what solvers gave, and an exact prune is what it says it is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from slimsearch.contracts import Pruned
from slimsearch.errors import RunError, SolverError
from slimsearch.solvers.magnitude import Magnitude
from slimsearch.solvers.sparsegpt import SparseGPT
from slimsearch.surgery.exact import prune_exactly
from slimsearch.surgery.level_store import LevelStore, fill, pack


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


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_store_comes_back_from_its_folder(seen, batches, tmp_path, place):
    model, store = seen[0], LevelStore(seen[0])
    levels = {m.name: (0.123456, 0.5, 1.0) for m in model.matrices}
    fill(store, model, batches, levels, Magnitude(), "both", lambda: None, tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "0000.safetensors", "0001.safetensors"]  # fmt: skip
    again = LevelStore(model, place)
    again.load(tmp_path)
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
         lambda: None, tmp_path)  # fmt: skip
    again = LevelStore(model)
    again.load(tmp_path)
    for found in (store, again):
        with pytest.raises(SolverError, match=r"blocks\.1\.down: stays indefinite"):
            found.stitch(model, {"blocks.1.down": 0.5})
        assert found.stitch(model, {"blocks.0.down": 0.5, "blocks.1.gate": 0.5}) == 2
        found.restore(model)


def test_on_disk_the_dense_weights_come_from_the_model_s_own_files(load, llava_16):
    """In the model's dtype, whatever the files' is; no copy of them is kept."""
    for dtype in ("float32", "bfloat16"):
        model = load(llava_16, dtype)
        on_disk, in_memory = LevelStore(model, "disk"), LevelStore(model, "memory")
        for matrix in model.matrices:
            weight = model.linear(matrix.name).weight
            before = weight.clone()
            on_disk.place(model, {matrix.name: pack(Pruned(torch.zeros_like(before), 0.0))})
            assert not weight.any()
            on_disk.restore(model)
            for dense in (weight, on_disk.dense(matrix.name), in_memory.dense(matrix.name)):
                assert dense.dtype == before.dtype
                assert torch.equal(dense, before)


def test_stitching_leaves_a_matrix_alone_whose_level_stays(seen, batches):
    model, store = seen[0], LevelStore(seen[0])
    fill(store, model, batches, {m.name: (0.3, 0.6) for m in model.matrices}, Magnitude(), "both",
         lambda: None)  # fmt: skip
    levels = {m.name: 0.3 for m in model.matrices}
    store.stitch(model, levels)
    for matrix in model.matrices:  # whoever writes is seen
        model.linear(matrix.name).weight.data.fill_(7.0)
    assert store.stitch(model, levels | {"blocks.1.o": 0.6, "blocks.0.q": 0.0}) == 2
    written = [m.name for m in model.matrices if not (model.linear(m.name).weight == 7.0).all()]
    assert written == ["blocks.0.q", "blocks.1.o"]


MAPPED = """
import sys
from pathlib import Path
from types import SimpleNamespace
import torch
from slimsearch.surgery.level_store import LevelStore
from slimsearch.policy import Matrix

linear = torch.nn.Linear(8, 8, bias=False)
vlm = SimpleNamespace(
    matrices=[Matrix("blocks.0.q", 4096, 4096)], device=torch.device("cpu"),
    linear=lambda name: linear,
)
store = LevelStore(vlm, sys.argv[2])
print(flush=True)
sys.stdin.readline()
store.load(Path(sys.argv[1]))
print(flush=True)
sys.stdin.readline()
"""


def test_a_store_on_disk_is_mapped_and_one_in_memory_is_read(tmp_path):
    """Resident memory of another process, as the kernel counts it; the file has 34 MiB."""
    weights = torch.randn(4096, 4096).masked_fill(torch.rand(4096, 4096) < 0.5, 0.0)
    packed = pack(Pruned(weights, 0.0), torch.float32)
    name = "blocks.0.q@0.5"
    tensors = {f"{name}.bits": packed.bits, f"{name}.values": packed.values}
    entries = {name: ["blocks.0.q", 0.5, 0.0, 4096, 4096]}
    save_file(tensors, tmp_path / "0000.safetensors", {"entries": json.dumps([entries, {}])})
    grown = {}
    for place in ("disk", "memory"):
        with subprocess.Popen(
            [sys.executable, "-c", MAPPED, str(tmp_path), place],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as child:  # fmt: skip
            child.stdout.readline()
            before = resident(child.pid)
            print(file=child.stdin, flush=True)
            child.stdout.readline()
            grown[place] = resident(child.pid) - before
            child.stdin.close()
    assert grown["disk"] < packed.bytes / 8
    assert grown["memory"] >= packed.bytes


def resident(process: int) -> int:
    """Bytes of a process that are in memory, mapped files included."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) * 1024
