"""An exact prune is the plain sequential one, and a search can be made of nothing else."""

import shutil
from dataclasses import replace

import pytest
import reference
import tiny
import torch

from slimsearch.api import assembly, inputs, runs
from slimsearch.model.conversation import text_batches
from slimsearch.record import history, run
from slimsearch.routes.kinds import PADDING
from slimsearch.searching.watch import Watch
from slimsearch.solvers.magnitude import Magnitude
from slimsearch.solvers.sparsegpt import SparseGPT
from slimsearch.surgery.exact import ExactStore, prune_exactly
from slimsearch.surgery.level_store import LevelStore, fill


@pytest.mark.parametrize("solver", [SparseGPT(), Magnitude()])
def test_an_exact_prune_is_the_plain_sequential_one(seen, batches, solver):
    """Block by block: Hessians of the model as pruned so far, then all seven matrices pruned."""
    model = seen[0]
    levels = {m.name: 0.2 + 0.05 * n for n, m in enumerate(model.matrices)}
    del levels["blocks.0.k"]
    store = LevelStore(model)
    wanted, errors = {}, {}
    for index in range(2):
        names = [m.name for m in model.matrices if m.block == f"blocks.{index}"]
        hessians = reference.hessians(model, batches, names)
        for name in names:
            if name in levels:
                (done,) = solver.prune(model.linear(name).weight, hessians[name], [levels[name]])
                wanted[name], errors[name] = done.weights, done.error
        for name in names:
            if name in levels:
                model.linear(name).weight.data.copy_(wanted[name])
    for matrix in model.matrices:
        model.linear(matrix.name).weight.data.copy_(store.dense(matrix.name))
    packed = prune_exactly(store, model, batches, levels, solver, "both")
    assert set(packed) == set(levels)
    for matrix in model.matrices:
        found = model.linear(matrix.name).weight
        if matrix.name in levels:
            assert int((found == 0).sum()) == round(levels[matrix.name] * matrix.size)
            assert torch.allclose(found, wanted[matrix.name], rtol=2e-3, atol=2e-4), matrix.name
            assert packed[matrix.name].error == pytest.approx(errors[matrix.name], rel=2e-3)
        else:
            assert torch.equal(found, store.dense(matrix.name))
    store.restore(model)
    assert store.sparsity(model) == 0


def test_an_exact_prune_begins_from_the_dense_model(seen, batches):
    model, store = seen[0], LevelStore(seen[0])
    levels = {m.name: 0.5 for m in model.matrices}
    first = prune_exactly(store, model, batches, levels, SparseGPT(), "both")
    again = prune_exactly(store, model, batches, levels, SparseGPT(), "both")
    for name, packed in first.items():
        assert torch.equal(packed.expand(), again[name].expand())


def test_an_exact_prune_costs_less_than_a_stitched_one(seen, batches):
    """What pruned inputs are for: the loss after all of it."""
    model, store = seen[0], LevelStore(seen[0])
    levels = {m.name: 0.6 for m in model.matrices}
    fill(store, model, batches, {name: (0.6,) for name in levels}, SparseGPT(), "both",
         lambda: None)  # fmt: skip
    with torch.no_grad():
        store.restore(model)
        dense = [model.decoder(**model.given(b)).last_hidden_state for b in batches]

        def away() -> float:
            return sum(
                float(((model.decoder(**model.given(b)).last_hidden_state - d)
                       [b.classes != PADDING] ** 2).sum())
                for b, d in zip(batches, dense, strict=True)
            )  # fmt: skip

        store.stitch(model, levels)
        stitched = away()
        prune_exactly(store, model, batches, levels, SparseGPT(), "both")
        assert 0 < away() < 1.2 * stitched


def test_values_are_rounded_as_the_checkpoint_will_hold_them(load, llava_16):
    model = load(llava_16)
    assert model.dtype == torch.float32
    ids = torch.randint(5, tiny.VOCABULARY, (6, 32), generator=torch.Generator().manual_seed(0))
    store = LevelStore(model)
    prune_exactly(store, model, text_batches(ids, model.device, 100), {"blocks.0.up": 0.5},
                  SparseGPT(), "both")  # fmt: skip
    weight = model.linear("blocks.0.up").weight
    assert torch.equal(weight, weight.bfloat16().float())
    assert int((weight == 0).sum()) == weight.numel() // 2


# ---- searches in which every candidate is pruned exactly


@pytest.fixture
def exact(seen, batches):
    return ExactStore(seen[0], batches, SparseGPT(), "both", true_sequential=False)


def weights(model) -> dict[str, torch.Tensor]:
    return {m.name: model.linear(m.name).weight.detach().clone() for m in model.matrices}


def test_an_exact_store_gives_what_an_exact_prune_gives(seen, batches, exact):
    model = seen[0]
    dense = weights(model)
    levels = {m.name: 0.5 for m in model.matrices if m.name != "blocks.0.q"}
    assert exact.stitch(model, levels) == 13
    found = weights(model)
    exact.restore(model)
    assert all(torch.equal(weight, dense[name]) for name, weight in weights(model).items())
    packed = prune_exactly(LevelStore(model), model, batches, levels, SparseGPT(), "both")
    for name, weight in found.items():
        assert torch.equal(weight, packed[name].expand() if name in packed else dense[name])


def test_an_exact_store_prunes_again_only_for_other_levels_or_another_projector(seen, exact):
    model = seen[0]
    levels = {m.name: 0.5 for m in model.matrices}
    assert exact.stitch(model, levels) == 14
    first = weights(model)
    assert exact.stitch(model, dict(levels)) == 0
    assert exact.stitch(model, levels | {"blocks.1.up": 0.25}) == 14
    assert exact.stitch(model, levels) == 14
    assert all(torch.equal(weight, first[name]) for name, weight in weights(model).items())
    model.set_weights({name: 2 * w for name, w in model.weights().items()})
    assert exact.stitch(model, levels) == 14
    again = weights(model)
    assert not torch.equal(again["blocks.0.q"], first["blocks.0.q"]), "other pictures, other mask"


def test_scores_of_an_exact_search_are_those_of_exact_prunes(small, tmp_path):
    chosen = replace(small, exact=True, out=str(tmp_path / "run"))
    found = runs.search(chosen)
    assert found.correlation is None
    assert not (found.folder / "levels").exists()
    scores = list(history.read(found.folder).scores.values())
    assert len({score.projector for score in scores}) > 1, "the projector never moved"
    for score in (scores[0], scores[-1]):
        alone = replace(
            chosen, rounds=1, candidates=1, projector_steps=0, out=str(tmp_path / score.candidate)
        )
        terms = _scored_exactly(alone, score, found.folder)
        assert score.terms == pytest.approx(terms, rel=1e-6)
    shutil.copytree(found.folder, tmp_path / "cut")
    journal = (found.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut" / "journal.jsonl").write_bytes(b"".join(journal[:7]))
    resumed = runs.resume(tmp_path / "cut")
    assert (resumed.policy, resumed.total, resumed.table) == (
        found.policy, found.total, found.table)  # fmt: skip


def _scored_exactly(chosen, score, folder) -> dict[str, float]:
    """The terms of a score's policy, pruned by `prune_exactly` under the score's projector."""
    bench = assembly.load(inputs.gather(chosen), Watch())
    loop, model = bench.loop, bench.loop.evaluator.vlm
    if score.projector:
        with run.reopen(folder) as opened:
            state = opened.load_projector(score.projector)
        model.set_weights(
            {k.removeprefix("weight."): v for k, v in state.items() if k.startswith("weight.")}
        )
    table = loop.space.decode(score.genes).tables["layer_sparsity"]
    levels = loop.evaluator.families["layer_sparsity"].edits(table, model.body)
    prune_exactly(LevelStore(model), model, loop.hessian_batches, levels, loop.solver, "both")
    return loop.evaluator.measure()


def test_following_the_drift_comes_nearer_to_the_dense_model(seen, batches):
    model, solver = seen[0], SparseGPT()
    store = LevelStore(model)
    levels = {m.name: 0.6 for m in model.matrices}

    def outputs() -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([
                model.decoder(**model.given(b)).last_hidden_state[
                    b.classes != PADDING
                ]
                for b in batches
            ])  # fmt: skip

    dense, away = outputs(), []
    for ridge in (0.0, 0.1):
        packed = prune_exactly(store, model, batches, levels, solver, "both", ridge=ridge)
        away.append(float((outputs() - dense).norm()))
        assert all(int((p.expand() == 0).sum()) == round(0.6 * p.expand().numel())
                   for p in packed.values())  # fmt: skip
    store.restore(model)
    assert away[1] < 0.99 * away[0]
