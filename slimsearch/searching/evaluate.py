"""Scores candidates: edits on, terms measured, edits exchanged for the next one's.

What a candidate was measured on before is not measured again: a larger share of the calibration
holds the rows of a smaller one, and a term that reads no pairs does not change when the projector
moves. What goes wrong with one candidate becomes a score of infinity with the reason.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from time import perf_counter

from slimsearch.contracts import Family, Term
from slimsearch.errors import SolverError, is_out_of_memory
from slimsearch.model.batch import IGNORED, Batch, Calibrated
from slimsearch.model.vlm import VLM
from slimsearch.policy import SPARSITY, Policy
from slimsearch.record.candidate import Candidate, Score, failed
from slimsearch.surgery.level_store import LevelStore


class Evaluator:
    """Built once for a search (once per worker), the model dense; `weights` weigh the terms in the
    total, `shares` of the calibration are what candidates are measured on."""

    def __init__(
        self,
        vlm: VLM,
        store: LevelStore,
        calibrated: Calibrated,
        families: Mapping[str, Family],
        terms: Mapping[str, Term],
        weights: Mapping[str, float],
        shares: Sequence[float] = (1.0,),
    ):
        self.vlm, self.store, self.calibrated = vlm, store, calibrated
        self.families, self.terms, self.weights = families, terms, weights
        self.shares = tuple(shares)
        self._slices = [  # what each share adds to the one before
            calibrated.part(share, beyond) for beyond, share in pairwise((0.0, *self.shares))
        ]
        self._targets = [(_targets(some.texts), _targets(some.pairs)) for some in self._slices]
        for term in terms.values():
            for some in self._slices:
                term.prepare(vlm, some)

    def score(
        self,
        candidate: Candidate,
        projector: int,
        known: Sequence[Score] = (),
        share: float = 1.0,
    ) -> Score:
        """The candidate's score under the projector that is on the model now; `known` are others
        of its scores, on any share and under any projector."""
        began = perf_counter()
        try:
            self.put_on(candidate.policy)
            terms = self.measure(share, known, projector)
        except SolverError as error:  # no damping helped a matrix that it asks for
            return failed(candidate, projector, str(error), share)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not self._take_smaller_batches():
                return failed(
                    candidate, projector, "out of memory, with one row a batch too", share
                )
            return self.score(candidate, projector, known, share)
        total = self.total(terms)
        if not isfinite(total):
            bad = next((name for name, value in terms.items() if not isfinite(value)), "the total")
            return failed(candidate, projector, f"{bad} is not a finite number", share)
        return Score(
            candidate=candidate.name,
            genes=candidate.genes,
            total=total,
            terms=terms,
            sparsity=self.sparsity(candidate.policy),
            seconds=perf_counter() - began,
            projector=projector,
            share=share,
        )

    def _take_smaller_batches(self) -> bool:
        """Halves the batches from here on; False where each holds one row already."""
        batches = self.calibrated.texts + self.calibrated.pairs
        rows = max((len(batch.ids) for batch in batches), default=1)
        if rows > 1:
            smaller = (rows + 1) // 2
            self._slices = [some.split(smaller) for some in self._slices]
            self.calibrated = self.calibrated.split(smaller)
        return rows > 1

    def put_on(self, policy: Policy) -> None:
        """Edits the model as the policy says; what an earlier policy did is undone.

        Sparsity comes last: pruned exactly, weights follow from how the blocks run.
        """
        for name, family in sorted(self.families.items(), key=lambda item: item[0] == SPARSITY):
            family.apply(family.edits(policy.table(name), self.vlm.body), self.vlm, self.store)

    def restore(self) -> None:
        """The dense model again."""
        for family in self.families.values():
            family.restore(self.vlm, self.store)

    def measure(
        self, share: float = 1.0, known: Sequence[Score] = (), projector: int = 0
    ) -> dict[str, float]:
        """Every term on the model as it stands; `known` are its scores so far."""
        found = {}
        for name, term in self.terms.items():
            alike = [s for s in known if not term.needs_pairs or s.projector == projector]
            before = max(
                (s for s in alike if s.ok and s.share <= share), key=lambda s: s.share, default=None
            )
            found[name] = self._term(name, share, before)
        return found

    def _term(self, name: str, share: float, before: Score | None) -> float:
        """A term on a share, of which it may be known on a smaller one: both by their targets."""
        if before is not None and before.share == share:
            return before.terms[name]
        term = self.terms[name]
        values, targets = [], []
        for until, some, counts in zip(self.shares, self._slices, self._targets, strict=True):
            if until > share:
                break
            if before is not None and until <= before.share:
                values.append(before.terms[name])
            else:
                values.append(term.measure(self.vlm, some))
            targets.append(counts[term.needs_pairs])
        if not any(targets):
            return values[0]
        return sum(v * n for v, n in zip(values, targets, strict=True) if n) / sum(targets)

    def total(self, terms: Mapping[str, float]) -> float:
        return sum(weight * terms[name] for name, weight in self.weights.items())

    def sparsity(self, policy: Policy) -> float:
        """The share of all prunable weights that a policy removes."""
        body = self.vlm.body
        removed = sum(
            family.removed(family.edits(policy.table(name), body), body)
            for name, family in self.families.items()
        )
        return removed / sum(matrix.size for matrix in body.matrices)


def _targets(batches: Sequence[Batch]) -> int:
    """How many tokens are predicted."""
    return sum(int((batch.targets != IGNORED).sum()) for batch in batches)
