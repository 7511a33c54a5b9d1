"""From survivors to a champion: exact prunes decide, and the table compares like with like."""

from dataclasses import replace

import pytest
import torch

from slimsearch.api import assembly, inputs
from slimsearch.errors import ResourceError, SolverError
from slimsearch.record import run
from slimsearch.searching import crown, polishing, repruning
from slimsearch.searching.examine import Examiner
from slimsearch.searching.loop import play
from slimsearch.searching.watch import Watch
from slimsearch.solvers.sparsegpt import SparseGPT
from slimsearch.surgery.exact import prune_exactly


@pytest.fixture
def played(small, tmp_path):
    """A search whose rounds are played, and nothing after them."""
    given = inputs.gather(replace(small, policy="per_matrix", finalists=3))
    bench = assembly.load(given, Watch())
    with run.create(tmp_path / "run", small, {}) as opened:
        yield bench, opened, play(bench.loop, opened, Watch())


def crowned(played, worse: float = 100.0):
    """The champion, every candidate scoring so much worse as it was stitched."""
    bench, opened, position = played
    front = crown._front

    def shifted(*given):
        return [replace(score, total=score.total + worse) for score in front(*given)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crown, "_front", shifted)
        return crown.crown(bench.loop, opened, Watch(), position)


def weights(loop) -> dict[str, torch.Tensor]:
    vlm = loop.evaluator.vlm
    return {m.name: vlm.linear(m.name).weight.clone() for m in vlm.matrices}


def test_the_best_exactly_pruned_finalist_is_crowned(played):
    bench, _, position = played
    found = crowned(played)
    assert len(found.finalists) == 3
    assert found.score == min(found.finalists, key=lambda score: score.total)
    loop = bench.loop
    for score in found.finalists:
        table = loop.space.decode(score.genes).tables["layer_sparsity"]
        levels = loop.evaluator.families["layer_sparsity"].edits(table, loop.evaluator.vlm.body)
        prune_exactly(loop.evaluator.store, loop.evaluator.vlm, loop.hessian_batches, levels,
                      loop.solver, loop.tokens, ridge=repruning.RIDGE)  # fmt: skip
        terms = loop.evaluator.measure()
        assert score.terms == terms
        assert score.total == loop.evaluator.total(terms)
        assert score.projector == position.projector


def test_the_best_as_it_was_stitched_is_crowned_where_that_scores_better(played):
    loop, _, position = played[0].loop, *played[1:]
    found = crowned(played, worse=-100.0)
    best = min((position.scores[genes] for genes in loop.strategy.survivors),
               key=lambda score: score.total)  # fmt: skip
    assert found.score.candidate == best.candidate
    assert found.weights is None
    assert len(found.finalists) == 3
    found.put_on(loop)
    assert loop.evaluator.total(loop.evaluator.measure()) == pytest.approx(best.total, rel=1e-6)


def test_finalists_are_the_best_survivors_under_the_last_projector(played):
    bench, _, position = played
    found = crowned(played)
    alive = [position.scores[genes] for genes in bench.loop.strategy.survivors]
    assert {score.projector for score in alive} == {position.projector}
    best = sorted(alive, key=lambda score: score.total)[:3]
    assert [s.candidate for s in found.finalists] == [s.candidate for s in best]


def test_the_champion_is_put_on_as_it_was_pruned(played):
    bench = played[0]
    found = crowned(played)
    loop = bench.loop
    loop.evaluator.restore()
    dense = weights(loop)
    found.put_on(loop)
    on = weights(loop)
    for name, packed in found.weights.items():
        assert torch.equal(on[name], packed.expand())
    assert all(torch.equal(on[n], dense[n]) for n in dense.keys() - found.weights.keys())
    assert loop.evaluator.store.sparsity(loop.evaluator.vlm) == pytest.approx(0.5, abs=0.01)
    loop.evaluator.restore()
    assert all(torch.equal(weight, dense[n]) for n, weight in weights(loop).items())


def test_a_finalist_that_cannot_be_pruned_loses(played, monkeypatch):
    prune, calls = SparseGPT.prune_together, []

    def first_fails(self, *given):
        calls.append(1)
        if len(calls) == 1:
            raise SolverError("cannot be solved")
        return prune(self, *given)

    monkeypatch.setattr(SparseGPT, "prune_together", first_fails)
    found = crowned(played)
    assert not found.finalists[0].ok
    assert "cannot be solved" in found.finalists[0].failure
    assert found.score.ok
    assert found.score.candidate != found.finalists[0].candidate


def test_if_no_finalist_can_be_pruned_the_run_stops(played, monkeypatch):
    def fail(self, *given):
        raise SolverError("cannot be solved")

    monkeypatch.setattr(SparseGPT, "prune_together", fail)
    with pytest.raises(ResourceError, match=r"Every finalist failed.*cannot be solved"):
        crowned(played)


def test_the_uniform_baseline_is_uniform(played):
    loop = played[0].loop
    repruning.prune_uniformly(loop)
    shares = loop.evaluator.store.sparsities(loop.evaluator.vlm)
    assert len(shares) == 14
    assert set(shares.values()) == {0.5}


@pytest.mark.parametrize(
    "solver", ["wanda", "magnitude", "magnitude_row", "random", "alpha_subnet"]
)
def test_what_a_plain_mask_keeps_stays_as_it_was(small, solver):
    """Finalists of solvers that mend nothing do not follow the drift of their inputs either."""
    bench = assembly.load(inputs.gather(replace(small, policy="uniform", solver=solver)), Watch())
    loop = bench.loop
    repruning.prune_policy(loop, repruning.uniform(loop))
    for name, found in weights(loop).items():
        dense = loop.evaluator.vlm.from_disk(name)
        assert torch.equal(found, torch.where(found == 0, 0.0, dense)), name
        assert int((found == 0).sum()) == found.numel() // 2


def test_polishing_never_makes_held_back_pairs_worse_and_rounds_to_disk(played):
    bench = played[0]
    found = crowned(played)
    loop = bench.loop
    found.put_on(loop)
    vlm = loop.evaluator.vlm
    before = loop.trainer._judged()
    polishing.polish(loop, played[1], Watch())
    assert loop.trainer._judged() <= before
    for weight in vlm.weights().values():
        assert torch.equal(weight, weight.to(vlm.disk_dtype).float())


def test_rows_hold_what_tasks_measure(played):
    bench = played[0]
    loop = bench.loop
    loop.evaluator.restore()
    examiner = Examiner(loop, bench.tasks, bench.held_out, Watch())
    examiner.examine("dense")
    repruning.prune_uniformly(loop)
    examiner.examine("uniform")
    assert [row.name for row in examiner.rows] == ["dense", "uniform"]
    assert [row.sparsity for row in examiner.rows] == [0.0, 0.5]
    for row in examiner.rows:
        assert set(row.figures) == {"perplexity", "accuracy", "answer_loss"}
    assert examiner.rows[0].figures != examiner.rows[1].figures
