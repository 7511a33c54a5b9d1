"""Scores candidates: edits on, terms measured, edits exchanged for the next one's.

A term that reads no pairs does not change when the projector moves, so a survivor's earlier value
is taken over. What goes wrong with one candidate becomes a score of infinity with the reason.
"""

from collections.abc import Mapping
from math import isfinite
from time import perf_counter

from slimsearch.candidate import Candidate, Score, failed
from slimsearch.contracts import Family, Term
from slimsearch.errors import SolverError, is_out_of_memory
from slimsearch.level_store import LevelStore
from slimsearch.policy import Policy
from slimsearch.vlm import VLM, Calibrated


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
        for term in terms.values():
            term.prepare(vlm)

    def score(self, candidate: Candidate, projector: int, earlier: Score | None = None) -> Score:
        """The candidate's score under the projector that is on the model now."""
        began = perf_counter()
        try:
            self.put_on(candidate.policy)
            terms = self.measure(earlier)
        except SolverError as error:  # no damping helped a matrix that it asks for
            return failed(candidate, projector, str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not self._take_smaller_batches():
                return failed(candidate, projector, "out of memory, with one row a batch too")
            return self.score(candidate, projector, earlier)
        total = self.total(terms)
        if not isfinite(total):
            bad = next((name for name, value in terms.items() if not isfinite(value)), "the total")
            return failed(candidate, projector, f"{bad} is not a finite number")
        return Score(
            candidate=candidate.name,
            genes=candidate.genes,
            total=total,
            terms=terms,
            sparsity=self.sparsity(candidate.policy),
            seconds=perf_counter() - began,
            projector=projector,
        )

    def _take_smaller_batches(self) -> bool:
        """Halves the batches from here on; False where each holds one row already."""
        batches = self.calibrated.all
        rows = max((len(batch.ids) for batch in batches), default=1)
        if rows > 1:
            smaller = (rows + 1) // 2
            texts, pairs = (
                tuple(part for batch in some for part in batch.split(smaller))
                for some in (self.calibrated.texts, self.calibrated.pairs)
            )
            self.calibrated = Calibrated(texts, pairs)
        return rows > 1

    def put_on(self, policy: Policy) -> None:
        """Edits the model as the policy says; what an earlier policy did is undone."""
        for name, family in self.families.items():
            edits = family.edits(policy.tables.get(name, {}), self.vlm.matrices)
            family.apply(edits, self.vlm, self.store)

    def restore(self) -> None:
        """The dense model again."""
        for family in self.families.values():
            family.restore(self.vlm, self.store)

    def measure(self, earlier: Score | None = None) -> dict[str, float]:
        """Every term on the model as it stands."""
        return {
            name: earlier.terms[name]
            if earlier is not None and not term.needs_pairs
            else term.measure(self.vlm, self.calibrated)
            for name, term in self.terms.items()
        }

    def total(self, terms: Mapping[str, float]) -> float:
        return sum(weight * terms[name] for name, weight in self.weights.items())

    def sparsity(self, policy: Policy) -> float:
        """The share of all prunable weights that a policy removes."""
        matrices = self.vlm.matrices
        removed = sum(
            family.removed(family.edits(policy.tables.get(name, {}), matrices), matrices)
            for name, family in self.families.items()
        )
        return removed / sum(matrix.size for matrix in matrices)
