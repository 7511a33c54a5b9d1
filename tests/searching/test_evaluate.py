"""Scores: what is measured, what is taken over, what fails."""

from math import inf, nan

import pytest
import torch

from slimsearch.contracts import Term
from slimsearch.families.layer_sparsity import LayerSparsity
from slimsearch.model.batch import Calibrated
from slimsearch.model.conversation import text_batches
from slimsearch.policy import Policy
from slimsearch.record.candidate import Candidate, Score
from slimsearch.searching.evaluate import Evaluator
from slimsearch.solvers.magnitude import Magnitude
from slimsearch.surgery.level_store import LevelStore, fill


class Given(Term):
    """Gives what it is told to, or raises it."""

    def __init__(self, value, needs_pairs: bool = False):
        self.value, self.calls, self.prepared = value, 0, 0
        self.needs_pairs = needs_pairs

    def prepare(self, vlm, calibrated) -> None:
        self.prepared += 1

    def measure(self, vlm, calibrated) -> float:
        self.calls += 1
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


POLICY = Policy({"layer_sparsity": {"blocks.0": 0.5}})
CANDIDATE = Candidate("1-01", (0, 0), POLICY)


@pytest.fixture
def evaluator(seen):
    model = seen[0]
    ids = torch.arange(5, 45).view(2, 20)
    batches = text_batches(ids, model.device, 1000)
    store = LevelStore(model)
    fill(store, model, batches, {m.name: (0.25, 0.5) for m in model.matrices}, Magnitude(), "both",
         lambda: None)  # fmt: skip

    def made(terms, weights=None, shares=(1.0,)) -> Evaluator:
        return Evaluator(
            model, store, Calibrated(tuple(batches), ()), {"layer_sparsity": LayerSparsity()},
            terms, weights or dict.fromkeys(terms, 1.0), shares,
        )  # fmt: skip

    return made


def test_the_total_is_the_weighted_sum(evaluator):
    terms = {"a": Given(2.0), "b": Given(3.0)}
    found = evaluator(terms, {"a": 1.0, "b": 0.5}).score(CANDIDATE, 4)
    assert (found.total, found.terms) == (3.5, {"a": 2.0, "b": 3.0})
    assert (found.candidate, found.genes, found.projector) == ("1-01", (0, 0), 4)
    assert found.ok
    assert terms["a"].prepared == 1


def test_the_sparsity_is_that_of_the_model_when_it_was_measured(evaluator, seen):
    model, shares = seen[0], []

    class Counting(Given):
        def measure(self, vlm, calibrated) -> float:
            zeros = sum(int((vlm.linear(m.name).weight == 0).sum()) for m in vlm.matrices)
            shares.append(zeros / sum(m.size for m in vlm.matrices))
            return 1.0

    built = evaluator({"a": Counting(1.0)})
    found = [built.score(Candidate("x", (), Policy({"layer_sparsity": table})), 0).sparsity
             for table in ({"blocks.0": 0.5}, {"blocks.1": 0.25}, {})]  # fmt: skip
    assert found == pytest.approx(shares)
    assert found == pytest.approx([0.25, 0.125, 0.0])
    built.restore()
    assert built.store.sparsity(model) == 0


def test_terms_without_pairs_are_taken_over(evaluator):
    terms = {"text": Given(2.0), "answers": Given(5.0, needs_pairs=True)}
    known = Score("1-01", (0, 0), 99.0, {"text": 7.0, "answers": 9.0})
    found = evaluator(terms).score(CANDIDATE, 1, [known])
    assert found.terms == {"text": 7.0, "answers": 5.0}
    assert (terms["text"].calls, terms["answers"].calls) == (0, 1)


class Losing(Term):
    """The loss of text, counting the tokens that it is asked for."""

    def __init__(self, needs_pairs=False):
        self.needs_pairs, self.asked = needs_pairs, 0

    def measure(self, vlm, calibrated) -> float:
        self.asked += sum(batch.ids.numel() for batch in calibrated.texts)
        return vlm.mean_loss(calibrated.texts)


def test_a_larger_share_measures_only_what_the_smaller_one_did_not(evaluator):
    whole = evaluator({"a": Losing()}).score(CANDIDATE, 3)
    term = Losing()
    racing = evaluator({"a": term}, shares=(0.5, 1.0))
    half = racing.score(CANDIDATE, 3, share=0.5)
    assert term.asked == 20
    assert racing.score(CANDIDATE, 3, [half]).total == pytest.approx(whole.total, rel=1e-6)
    assert term.asked == 40
    assert racing.score(CANDIDATE, 3).total == pytest.approx(whole.total, rel=1e-6)
    assert term.asked == 80
    assert half.total != pytest.approx(whole.total, rel=1e-6), "both halves are alike"


def test_what_reads_pairs_is_measured_anew_once_the_projector_moved(evaluator):
    terms = {"text": Given(2.0), "answers": Given(5.0, needs_pairs=True)}
    racing = evaluator(terms, shares=(0.5, 1.0))
    known = [
        Score("1-01", (0, 0), 99.0, {"text": 7.0, "answers": 9.0}, projector=1, share=1.0),
        Score("1-01", (0, 0), 99.0, {"text": 6.0, "answers": 8.0}, projector=2, share=0.5),
    ]
    half = racing.score(CANDIDATE, 2, known, 0.5)
    assert half.terms == {"text": 6.0, "answers": 8.0}
    assert (terms["text"].calls, terms["answers"].calls) == (0, 0)
    whole = racing.score(CANDIDATE, 2, known)
    assert whole.terms["text"] == 7.0
    assert (terms["text"].calls, terms["answers"].calls) == (0, 1)
    assert racing.score(CANDIDATE, 3, known).terms["answers"] == 5.0


def test_a_score_that_failed_is_not_gone_on_from(evaluator):
    racing = evaluator({"a": Given(2.0)}, shares=(0.5, 1.0))
    bad = Score("1-01", (0, 0), inf, {"a": nan}, share=0.5, failure="a is not a finite number")
    assert racing.score(CANDIDATE, 0, [bad]).total == 2.0


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_term_that_is_not_finite_is_a_failure_with_its_name(evaluator, value):
    found = evaluator({"a": Given(1.0), "b": Given(value)}).score(CANDIDATE, 0)
    assert found.total == inf
    assert found.failure == "b is not a finite number"
    assert not found.ok


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), MemoryError("x")])
def test_memory_that_runs_out_is_a_failure(evaluator, error):
    found = evaluator({"a": Given(error)}).score(CANDIDATE, 0)
    assert found.total == inf
    assert "out of memory" in found.failure


def test_memory_that_runs_out_is_tried_again_with_smaller_batches(evaluator):
    class Roomy(Given):
        """Fails on more than one row at a time."""

        def measure(self, vlm, calibrated) -> float:
            self.calls += 1
            if max(len(batch.ids) for batch in calibrated.texts) > 1:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: x")
            return vlm.mean_loss(calibrated.texts)

    terms = {"a": Roomy(0.0)}
    built = evaluator(terms)
    whole = built.calibrated
    found = built.score(CANDIDATE, 0)
    assert found.ok
    assert found.total == pytest.approx(built.vlm.mean_loss(whole.texts), rel=1e-6)
    assert terms["a"].calls == 2
    assert built.score(CANDIDATE, 0).total == found.total
    assert terms["a"].calls == 3, "what did not fit once was tried again"


def test_other_runtime_errors_are_not_hidden(evaluator):
    with pytest.raises(RuntimeError, match="a bug"):
        evaluator({"a": Given(RuntimeError("a bug"))}).score(CANDIDATE, 0)


def test_finite_terms_whose_sum_is_not_are_a_failure_too(evaluator):
    found = evaluator({"a": Given(1e308), "b": Given(1e308)}, {"a": 1.0, "b": 1.0}).score(
        CANDIDATE, 0
    )
    assert found.total == inf
    assert found.failure


def test_a_bug_is_not_hidden_as_a_failure(evaluator):
    with pytest.raises(KeyError):
        evaluator({"a": Given(KeyError("ours"))}).score(CANDIDATE, 0)


def test_a_candidate_is_measured_as_if_it_were_alone(evaluator, seen):
    """What the one before did is undone: scores do not depend on the order."""

    class Norm(Given):
        def measure(self, vlm, calibrated) -> float:
            return float(sum(vlm.linear(m.name).weight.double().norm() for m in vlm.matrices))

    tables = [{"blocks.0": 0.5}, {"blocks.0": 0.25, "blocks.1.down": 0.5}, {"blocks.1": 0.5}]
    candidates = [Candidate(str(n), (n,), Policy({"layer_sparsity": t}))
                  for n, t in enumerate(tables)]  # fmt: skip
    built = evaluator({"a": Norm(0.0)})
    forth = {c.name: built.score(c, 0).total for c in candidates}
    back = {c.name: built.score(c, 0).total for c in reversed(candidates)}
    assert forth == back
    assert len(set(forth.values())) == 3
