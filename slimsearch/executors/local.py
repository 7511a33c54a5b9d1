"""Scores candidates one after the other in this process."""

from collections.abc import Iterator, Mapping, Sequence

from slimsearch.contracts import Executor
from slimsearch.record.candidate import Candidate, Score
from slimsearch.searching.evaluate import Evaluator


class Local(Executor):
    def score(
        self,
        candidates: Sequence[Candidate],
        evaluator: Evaluator,
        projector: int,
        known: Mapping[str, Sequence[Score]],
        share: float = 1.0,
    ) -> Iterator[Score]:
        for candidate in candidates:
            yield evaluator.score(candidate, projector, known.get(candidate.name, ()), share)
