"""The search: rounds of candidates, each followed by a projector step. Resuming is replay.

A round, as in SlimLLaVA's Algorithm 1: ask for genes, race them and the survivors on models
stitched from the level store, tell the scores, weigh candidates by neighbour density, move the
projector. A round that the journal holds is told again instead of scored again, so a resumed search
goes the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from slimsearch.errors import ResourceError, RunError
from slimsearch.record.candidate import Candidate, Genes, Outlook, ProjectorStep, Round, Score
from slimsearch.record.run import Run
from slimsearch.searching import allocation, outlook, race
from slimsearch.searching.allocation import Ground
from slimsearch.searching.density import neighbour_density
from slimsearch.searching.parts import Loop, Position, note_raised
from slimsearch.searching.stock import fill_store
from slimsearch.searching.watch import Watch
from slimsearch.settings import patience_of
from slimsearch.teaching.training import Course

GAIN = 0.01  # of a total: a round that brings less is idle


def play(loop: Loop, run: Run, watch: Watch) -> Position:
    """Plays every round that the journal does not hold, and returns where that led."""
    fill_store(loop, run, watch)
    _begin(loop, run, watch)
    position = Position(projector=0, scores={})
    steps = sum(race.measurements(loop.settings.candidates, loop.shares))
    patience = 0 if loop.strategy.weighs_terms else patience_of(loop.settings)
    with watch.stage("search", loop.settings.rounds * steps):
        for index in range(1, loop.settings.rounds + 1):
            done = run.history.rounds.get(index)
            _look_ahead(loop, run, watch, position, index)
            asked = loop.strategy.ask()
            if not asked:
                break  # the strategy has nothing left to propose
            played = done is None
            if done is None:
                _catch_up(loop, run, position)
                done = _play_round(loop, run, watch, position, index, asked)
                run.add_round(done)
            else:
                _check_asked(run, done, asked)
                _recall(run, position, done, loop.shares)
                for _ in range(steps):
                    watch.advance()
            _tell(loop, position, done)
            watch.closed(done)
            if not loop.strategy.weighs_terms:  # else all scores are asked for in the end
                _let_go(loop, run, position, played)
            if patience and position.idle == patience:
                watch.note(
                    f"Less than {GAIN:.0%} better in each of {patience} rounds: the search ends."
                )
                break
    _catch_up(loop, run, position)
    return position


def _begin(loop: Loop, run: Run, watch: Watch) -> None:
    """Tells the strategy what is known by rule."""
    loop.evaluator.restore()
    with watch.stage("allocations"):
        known = run.history.hints
        if known is None:
            ground = Ground(loop.space, loop.evaluator, stored=not loop.settings.exact)
            known = allocation.gather(loop.strategy.allocations, ground)
            run.add_hints(known)
    loop.strategy.start(known)


def _look_ahead(loop: Loop, run: Run, watch: Watch, position: Position, index: int) -> None:
    """Tells the strategy what changes of a new champion, at first of the optimal allocation, would
    cost, where it wants to know."""
    hints = run.history.hints
    if not loop.strategy.looks_ahead or hints is None or loop.settings.exact:
        return
    genes = position.champion.genes if position.champion else hints.allocations.get("optimal")
    if genes is None or genes == position.seen:
        return
    told = run.history.outlooks.get(index)
    if told is None and index not in run.history.rounds:
        told = _looked(loop, run, watch, position, genes)
        run.add_outlook(index, told)
    if told is not None:
        position.seen = genes
        loop.strategy.turn(told)


def _looked(loop: Loop, run: Run, watch: Watch, position: Position, genes: Genes) -> Outlook:
    """From where these genes stand; empty where nothing was foretold at all."""
    hints = run.history.hints
    if hints is None or not hints.costs:
        return Outlook(genes)
    _catch_up(loop, run, position)
    with watch.stage("outlook"):
        return outlook.look(loop.space, loop.evaluator, genes, hints.costs)


def _play_round(
    loop: Loop, run: Run, watch: Watch, position: Position, index: int, asked: Sequence[Genes]
) -> Round:
    """One round that is not in the journal."""
    began = perf_counter()
    # Survivors race again: what they scored under this projector is free.
    names = {genes: position.scores[genes].candidate for genes in loop.strategy.survivors}
    names |= {g: f"{index}-{place:02d}" for place, g in enumerate(asked, 1) if g not in names}
    candidates = [Candidate(names[g], g, loop.space.decode(g)) for g in names]
    fresh = _race(loop, run, watch, position, candidates)
    known = {score.genes: score for score in fresh}
    scores = tuple(known[genes] for genes in names)
    good = [score for score in scores if score.ok]
    if not good:
        run.give_up(fresh)
        raise ResourceError(
            f"Every candidate of round {index} failed; the last one: {scores[-1].failure}. What "
            f"was scored before is in the journal; a resumed run tries this round again."
        )
    weights = neighbour_density(
        [loop.space.values(score.genes) for score in good], loop.settings.neighbours
    )
    champion = min(good, key=lambda score: score.total)
    step = _move_projector(loop, run, position, index, good, weights, champion, watch)
    return Round(
        index=index,
        scores=scores,
        weights=tuple(weights),
        champion=champion,
        projector=index if step is not None and step.kept else position.projector,
        step=step,
        seconds=perf_counter() - began,
    )


def _race(
    loop: Loop, run: Run, watch: Watch, position: Position, candidates: Sequence[Candidate]
) -> list[Score]:
    """Scores on as much of the calibration as each candidate got to."""

    def measure(some: Sequence[Candidate], share: float) -> list[Score]:
        return score_all(loop, run, watch, position, some, share)

    sure = {c.name for c in candidates if run.score_of(c, position.projector, 1.0) is not None}
    if position.champion is not None:  # what all others are compared with
        sure.add(position.champion.candidate)
    return race.race(candidates, loop.shares, measure, sure)


def score_all(
    loop: Loop,
    run: Run,
    watch: Watch,
    position: Position,
    candidates: Sequence[Candidate],
    share: float = 1.0,
) -> list[Score]:
    """Scores under the current projector, those that the journal holds for free."""
    paid = {c.name: run.score_of(c, position.projector, share) for c in candidates}
    todo = [candidate for candidate in candidates if paid[candidate.name] is None]
    # Pruned exactly, a candidate's weights follow the projector: no term stays as it was.
    measured = {} if loop.settings.exact else position.measured
    known = {
        c.name: [measured[key] for part in loop.shares if (key := (c.name, part)) in measured]
        for c in todo
    }
    for score in loop.executor.score(todo, loop.evaluator, position.projector, known, share):
        for note in loop.executor.take_notes():
            watch.note(note)
        note_raised(loop, run, watch, f"candidate {score.candidate}")
        run.add_score(score)
        paid[score.candidate] = score
        watch.scored(score)
    found = [score for c in candidates if (score := paid[c.name]) is not None]
    position.measured |= {(score.candidate, share): score for score in found}
    return found


def _move_projector(
    loop: Loop,
    run: Run,
    position: Position,
    index: int,
    good: Sequence[Score],
    weights: Sequence[float],
    champion: Score,
    watch: Watch,
) -> ProjectorStep | None:
    """The round's projector step; a kept one gets the round's number as its version."""
    if loop.trainer is None:
        return None

    def putting_on(score: Score):
        policy = loop.space.decode(score.genes)
        return lambda: loop.evaluator.put_on(policy)

    with watch.stage("projector"):
        course = Course(
            [putting_on(score) for score in good],
            weights,
            putting_on(champion),
            loop.settings.projector_steps,
            np.random.default_rng([loop.settings.seed, index]),
        )
        step = loop.trainer.step(course)
        if step.kept:
            run.save_projector(index, loop.trainer.state())
            loop.trainer.version = index
    return step


def _recall(run: Run, position: Position, done: Round, shares: Sequence[float]) -> None:
    """Takes from the journal what a replayed round measured."""
    for name in (score.candidate for score in done.scores):
        for share in shares:
            if score := run.history.scores.get((name, position.projector, share)):
                position.measured[name, share] = score


def _check_asked(run: Run, done: Round, asked: Sequence[Genes]) -> None:
    """Refuses to replay a round of other candidates than this search would propose."""
    if not set(asked) <= {score.genes for score in done.scores}:
        raise RunError(
            f"{run.folder} holds a round {done.index} of other candidates than this search "
            f"proposes: journal and settings belong to different searches."
        )


def _tell(loop: Loop, position: Position, done: Round) -> None:
    """Passes a round on to the strategy, whether it was played or replayed."""
    position.scores.update({score.genes: score for score in done.scores})
    position.projector = done.projector
    if (before := position.champion) is not None:
        gained = before.total - done.champion.total
        position.idle = position.idle + 1 if gained < GAIN * abs(before.total) else 0
    position.champion = done.champion
    loop.strategy.tell(done.scores)


def _let_go(loop: Loop, run: Run, position: Position, played: bool) -> None:
    """Forgets what no round after this one can ask for: all but the survivors."""
    position.scores = {genes: position.scores[genes] for genes in loop.strategy.survivors}
    alive = {score.candidate for score in position.scores.values()}
    position.measured = {key: s for key, s in position.measured.items() if key[0] in alive}
    if played:  # else the journal may hold scores of the next round already
        run.history.let_go(alive)


def _catch_up(loop: Loop, run: Run, position: Position) -> None:
    """After replayed rounds, puts the journal's projector on the model."""
    if loop.trainer is not None and loop.trainer.version != position.projector:
        loop.trainer.load(run.load_projector(position.projector))
        loop.trainer.version = position.projector
