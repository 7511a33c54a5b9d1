"""Settings reach the parts that they are for."""

from dataclasses import replace

import pytest

from slimsearch.api import assembly, inputs
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings


def bench_of(settings: Settings):
    return assembly.load(inputs.gather(settings), Watch())


def test_a_bench_has_everything(small):
    bench = bench_of(small)
    loop = bench.loop
    assert set(bench.tasks) == {"perplexity", "pairs"}
    assert set(loop.evaluator.terms) == {"text_loss", "answer_loss"}
    assert loop.evaluator.weights == {"text_loss": 1, "answer_loss": 10}
    assert loop.trainer is not None
    assert len(loop.space.genes) == 14
    assert loop.hessian_batches == loop.evaluator.calibrated.all


def test_plug_ins_get_the_settings_that_are_named_like_their_fields():
    made = assembly.make("solvers", "sparsegpt", Settings(damping=0.25))
    assert made.damping == 0.25
    assert assembly.make("solvers", "random", Settings(seed=9)).seed == 9
    assert type(assembly.make("executors", "local", Settings())).__name__ == "Local"


def test_calibration_and_evaluation_share_no_picture(small):
    given = inputs.gather(small)
    used = {str(pair.picture) for pair in given.material.pairs}
    held = {str(pair.picture) for pair in given.material.held_pairs}
    assert used
    assert held
    assert not used & held


@pytest.mark.parametrize(
    ("changes", "trainer"),
    [({}, True), ({"projector_steps": 0}, False), ({"objective": "paper"}, False),
     ({"pairs": "none"}, False)],
)  # fmt: skip
def test_when_the_projector_is_trained(small, changes, trainer):
    assert (bench_of(replace(small, **changes)).loop.trainer is not None) == trainer


def test_the_paper_objective_calibrates_on_text_alone(small):
    bench = bench_of(replace(small, objective="paper"))
    assert bench.loop.evaluator.calibrated.pairs == ()
    assert all(batch.looks is None for batch in bench.loop.hessian_batches)
    assert bench.held_out.pairs


def test_levels_replace_the_policys(small):
    bench = bench_of(replace(small, levels="0.4,0.5,0.6"))
    assert {gene.choices for gene in bench.loop.space.genes} == {(0.4, 0.5, 0.6)}
