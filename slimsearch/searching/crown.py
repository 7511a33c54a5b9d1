"""From the survivors to a champion.

Candidates were ranked on models stitched from the level store. The best few are pruned again,
sequentially and exactly, under the projector that the search ended with; the best of those wins, or
the best as it was stitched: a search that goes by gradients chooses weights, not levels alone, and
others at the same levels may lose what it found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from slimsearch.errors import ResourceError, SolverError, is_out_of_memory
from slimsearch.policy import Policy
from slimsearch.record.candidate import Candidate, Score, failed
from slimsearch.record.run import Run
from slimsearch.searching import picking, ranks
from slimsearch.searching.loop import score_all
from slimsearch.searching.parts import Loop, Position, note_raised
from slimsearch.searching.repruning import prune_policy, without_sparsity
from slimsearch.searching.watch import Watch
from slimsearch.surgery.level_store import Packed


@dataclass(frozen=True)
class Champion:
    """The winner, with its weights where they were pruned exactly."""

    score: Score
    policy: Policy
    weights: dict[str, Packed] | None  # None: stitched from the store
    correlation: float | None  # of stitched and exact totals by rank; None where none is stitched
    finalists: tuple[Score, ...]
    front: tuple[Score, ...] = ()  # of a strategy that weighs terms, as stitched

    def put_on(self, loop: Loop) -> None:
        """Puts the winner on the model."""
        if self.weights is None:
            loop.evaluator.put_on(self.policy)
            return
        loop.evaluator.put_on(without_sparsity(self.policy))
        loop.evaluator.store.place(loop.evaluator.vlm, self.weights)


def crown(loop: Loop, run: Run, watch: Watch, position: Position) -> Champion:
    """Prunes the finalists exactly; the best of them wins."""
    front = _front(loop, run, watch, position)
    pick = picking.parse(loop.settings.pick, loop.evaluator.weights, loop.strategy.weighs_terms)
    finalists = pick.order(front, front)[: loop.settings.finalists or 1]
    several = tuple(front) if loop.strategy.weighs_terms else ()
    if not finalists:
        raise ResourceError("No candidate is left to crown: every one failed.")
    if not pick.meets(finalists[0]):
        watch.note(f"No candidate meets {loop.settings.pick}; the nearest one is taken.")
    if not loop.settings.finalists:
        policy = loop.space.decode(finalists[0].genes)
        return Champion(finalists[0], policy, None, None, (), several)
    exact: list[Score] = []
    best: tuple[Score, dict[str, Packed] | None] | None = None
    with watch.stage("finalists", len(finalists)) as advance:
        for stitched in finalists:
            score = run.history.exact.get((stitched.candidate, position.projector, stitched.share))
            packed = None
            if score is None:
                score, packed = _exact(loop, position, stitched)
                note_raised(loop, run, watch, f"finalist {stitched.candidate}")
                run.add_exact(score)
            exact.append(score)
            if score.ok and (best is None or pick.order([best[0], score], front)[0] is score):
                best = score, packed
            advance()
    if best is None:
        run.give_up(exact, exact=True)
        raise ResourceError(f"Every finalist failed; the last one: {exact[-1].failure}.")
    totals = ([score.total for score in some] for some in (finalists, exact))
    correlation = None if loop.settings.exact else ranks.correlation(*totals)
    score, packed = best
    if not loop.settings.exact and pick.order([score, finalists[0]], front)[0] is finalists[0]:
        watch.note("The best candidate scores better as it was stitched than pruned again.")
        score, packed = finalists[0], {}
    policy = loop.space.decode(score.genes)
    if packed is None:  # scored before the run was interrupted
        packed = prune_policy(loop, policy)
        note_raised(loop, run, watch, f"finalist {score.candidate}")
    return Champion(score, policy, packed or None, correlation, tuple(exact), several)


def _front(loop: Loop, run: Run, watch: Watch, position: Position) -> list[Score]:
    """The survivors, or the front of all that was scored, under the last projector."""
    genes = loop.strategy.survivors
    if loop.strategy.weighs_terms:
        genes = [score.genes for score in picking.front(list(position.scores.values()))]
    alive = [position.scores[some] for some in genes]
    stale = [s for s in alive if s.projector != position.projector or s.share < 1]
    candidates = [Candidate(s.candidate, s.genes, loop.space.decode(s.genes)) for s in stale]
    with watch.stage("finalists", len(candidates)):
        fresh = score_all(loop, run, watch, position, candidates)
    position.scores.update({score.genes: score for score in fresh})
    alive = [position.scores[some] for some in genes]
    return picking.front(alive) if loop.strategy.weighs_terms else alive


def _exact(loop: Loop, position: Position, stitched: Score) -> tuple[Score, dict[str, Packed]]:
    """A finalist pruned exactly and scored; what fails scores infinity."""
    candidate = Candidate(stitched.candidate, stitched.genes, loop.space.decode(stitched.genes))
    try:
        packed = prune_policy(loop, candidate.policy)
        terms = loop.evaluator.measure()
    except (RuntimeError, MemoryError, SolverError) as error:
        if not isinstance(error, SolverError) and not is_out_of_memory(error):
            raise
        return failed(candidate, position.projector, f"{type(error).__name__}: {error}"), {}
    total = loop.evaluator.total(terms)
    return replace(stitched, total=total, terms=terms, projector=position.projector), packed
