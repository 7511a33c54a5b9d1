"""Scores candidates: edits on, terms measured, edits exchanged for the next one's.

A term that reads no pairs does not change when the projector moves, so a survivor's earlier value
is taken over. What goes wrong with one candidate becomes a score of infinity with the reason.
"""

from collections.abc import Mapping
from math import isfinite
from time import perf_counter

from slimsearch.contracts import Family, Term
from slimsearch.errors import SolverError, is_out_of_memory
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM
from slimsearch.policy import SPARSITY, Policy
from slimsearch.record.candidate import Candidate, Score, failed
from slimsearch.surgery.level_store import LevelStore


class Evaluator:
    """Built once for a search (once per worker); `weights` weigh the terms in the total."""

    def __init__(
        self,
        vlm: VLM,
        store: LevelStore,
        calibrated: Calibrated,
        families: Mapping[str, Family],
        terms: Mapping[str, Term],
        weights: Mapping[str, float],
    ):
        self.vlm, self.store, self.calibrated = vlm, store, calibrated
        self.families, self.terms, self.weights = families, terms, weights
        self._parts: dict[float, Calibrated] = {}
        self.use(1.0)

    def use(self, share: float) -> None:
        """Makes a share of the calibration ready to be measured on; the model is dense."""
        if share not in self._parts:
            self._parts[share] = self.calibrated.part(share)
            for term in self.terms.values():
                term.prepare(self.vlm, self._parts[share])

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the calibration, those that are ready."""
        return tuple(self._parts)

    def score(
        self,
        candidate: Candidate,
        projector: int,
        earlier: Score | None = None,
        share: float = 1.0,
    ) -> Score:
        """The candidate's score under the projector that is on the model now."""
        began = perf_counter()
        try:
            self.put_on(candidate.policy)
            terms = self.measure(earlier, share)
        except SolverError as error:  # no damping helped a matrix that it asks for
            return failed(candidate, projector, str(error), share)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not self._take_smaller_batches():
                return failed(
                    candidate, projector, "out of memory, with one row a batch too", share
                )
            return self.score(candidate, projector, earlier, share)
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
            self._parts = {share: part.split(smaller) for share, part in self._parts.items()}
            self.calibrated = self._parts[1.0]
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

    def measure(self, earlier: Score | None = None, share: float = 1.0) -> dict[str, float]:
        """Every term on the model as it stands."""
        part = self._parts[share]
        return {
            name: earlier.terms[name]
            if earlier is not None and not term.needs_pairs
            else term.measure(self.vlm, part)
            for name, term in self.terms.items()
        }

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
