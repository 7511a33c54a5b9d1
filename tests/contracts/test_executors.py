"""Every file in executors/ against the contract of an executor."""

import pytest

from slimsearch.contracts import Executor
from slimsearch.families.layer_sparsity import LayerSparsity
from slimsearch.model.batch import Calibrated
from slimsearch.objectives.text_loss import TextLoss
from slimsearch.plugins import about, make, names
from slimsearch.policy import Policy
from slimsearch.record.candidate import Candidate, Score
from slimsearch.searching.evaluate import Evaluator
from slimsearch.solvers.magnitude import Magnitude
from slimsearch.surgery.level_store import LevelStore, fill

EXECUTORS = names("executors")


@pytest.fixture
def evaluator(seen, batches) -> Evaluator:
    model, store = seen[0], LevelStore(seen[0])
    levels = {m.name: (0.25, 0.5) for m in model.matrices}
    fill(store, model, batches, levels, Magnitude(), "both", lambda: None)
    texts = tuple(batch for batch in batches if batch.looks is None)
    families = {"layer_sparsity": LayerSparsity()}
    return Evaluator(
        model, store, Calibrated(texts, ()), families, {"text_loss": TextLoss()},
        {"text_loss": 1.0}, (0.5, 1.0),
    )  # fmt: skip


def test_all_are_found():
    assert set(EXECUTORS) >= {"local", "ray"}
    assert all(about("executors", name) for name in EXECUTORS)


@pytest.mark.parametrize("name", EXECUTORS)
def test_scores_come_in_the_order_given(name, evaluator):
    """The same as the evaluator's own; what is known is taken over."""
    candidates = [
        Candidate(f"1-{n:02d}", (n,), Policy({"layer_sparsity": {"blocks.*": n / 4}}))
        for n in (1, 0, 2)
    ]
    known = {"1-00": [Score("1-00", (0,), 9.0, {"text_loss": 9.0}, share=0.5)]}
    executor = make("executors", name, {"ray_workers": 1})
    assert isinstance(executor, Executor)
    assert list(executor.score([], evaluator, 7, {})) == []
    scores = list(executor.score(candidates, evaluator, 7, known, 0.5))
    assert executor.take_notes() == []
    executor.close()
    evaluator.restore()
    assert scores == [evaluator.score(c, 7, known.get(c.name, ()), 0.5) for c in candidates]
    assert [score.candidate for score in scores] == ["1-01", "1-00", "1-02"]
    assert scores[1].total == 9.0
