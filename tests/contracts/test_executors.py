"""Every file in executors/ against the contract of an executor."""

import pytest

from slimsearch.candidate import Candidate, Score
from slimsearch.contracts import Executor
from slimsearch.plugins import about, find, names
from slimsearch.policy import Policy

EXECUTORS = names("executors")


class Counting:
    """An evaluator that scores by name and notes what it was given."""

    def __init__(self) -> None:
        self.given = []

    def score(self, candidate, projector, earlier=None, share=1.0):
        self.given.append((candidate.name, earlier))
        return Score(candidate.name, candidate.genes, float(candidate.name[2:]),
                     projector=projector, share=share)  # fmt: skip


def test_all_are_found():
    assert set(EXECUTORS) >= {"local"}
    assert all(about("executors", name) for name in EXECUTORS)


@pytest.mark.parametrize("name", EXECUTORS)
def test_scores_come_in_the_order_given(name):
    candidates = [Candidate(f"1-{n:02d}", (n,), Policy({})) for n in (3, 1, 2, 5, 4)]
    evaluator, earlier = Counting(), {"1-02": Score("1-02", (2,), 9.0, {"text_loss": 9.0})}
    executor = find("executors", name)()
    assert isinstance(executor, Executor)
    scores = list(executor.score(candidates, evaluator, 7, earlier, 0.5))
    assert [score.candidate for score in scores] == [c.name for c in candidates]
    assert [score.total for score in scores] == [3, 1, 2, 5, 4]
    assert {score.projector for score in scores} == {7}
    assert {score.share for score in scores} == {0.5}
    assert dict(evaluator.given)["1-02"] is earlier["1-02"]
    assert dict(evaluator.given)["1-03"] is None


@pytest.mark.parametrize("name", EXECUTORS)
def test_nothing_to_score(name):
    assert list(find("executors", name)().score([], Counting(), 0, {})) == []
