"""From the survivors to a champion: exact prunes, a last polish, the final table.

Candidates were ranked on models stitched from the level store. The best few are pruned again,
sequentially and exactly, under the projector that the search ended with; the best of those wins, or
the best as it was stitched: a search that goes by gradients chooses weights, not levels alone, and
others at the same levels may lose what it found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from slimsearch.contracts import Task
from slimsearch.errors import ResourceError, SolverError, is_out_of_memory
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM
from slimsearch.policy import SPARSITY, Policy
from slimsearch.record.candidate import Candidate, Row, Score, failed
from slimsearch.record.run import Run
from slimsearch.searching import picking, ranks
from slimsearch.searching.loop import Loop, Position, note_raised, score_all
from slimsearch.searching.watch import Watch
from slimsearch.settings import polish_of
from slimsearch.surgery.exact import prune_exactly
from slimsearch.surgery.level_store import Packed
from slimsearch.teaching.training import Course, Trainer

RIDGE = 3.0  # of 0.01 to 10, best on both text and pairs where it was tried


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
        loop.evaluator.put_on(_without_sparsity(self.policy))
        loop.evaluator.store.place(loop.evaluator.vlm, self.weights)


class Examiner:
    """Fills the final table: the same tasks and held-out data for every row.

    With a run, each row is kept in its journal and not measured twice.
    """

    def __init__(
        self,
        loop: Loop,
        tasks: Mapping[str, Task],
        held_out: Calibrated,
        watch: Watch,
        run: Run | None = None,
    ):
        self._loop, self._tasks, self._held_out = loop, tasks, held_out
        self._watch, self._run = watch, run
        self.rows: list[Row] = []

    def examine(self, name: str, put_on: Callable[[], object] = lambda: None) -> None:
        """Adds a row for the model as `put_on` leaves it."""
        if self._run is not None and (kept := self._run.history.rows.get(name)):
            self.rows.append(kept)
            return
        put_on()
        if self._run is not None:
            note_raised(self._loop, self._run, self._watch, f"row '{name}'")
        vlm, store = self._loop.evaluator.vlm, self._loop.evaluator.store
        with self._watch.stage("evaluation"):
            figures: dict[str, float] = {}
            for task in self._tasks.values():
                figures |= task.measure(vlm, self._held_out)
        self.rows.append(Row(name, store.sparsity(vlm), figures))
        if self._run is not None:
            self._run.add_row(self.rows[-1])


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


def tuned(loop: Loop) -> list[str]:
    """What of the champion is trained, besides what its pruning mends."""
    wanted = _polish(loop) if loop.settings.final_steps and loop.texts.possible else "none"
    return [
        *(["projector"] if loop.trainer is not None else []),
        *(["gains"] if wanted in ("gains", "all") else []),
        *(["weights"] if wanted == "all" else []),
    ]


def polisher(loop: Loop) -> Trainer | None:
    """What trains the champion alone, or None where nothing is to be trained."""
    wanted, vlm = tuned(loop), loop.evaluator.vlm
    if not wanted or not loop.settings.final_steps or _polish(loop) == "none":
        return None
    rates: dict[str, float] = {}
    if "projector" in wanted:
        rates |= dict.fromkeys(vlm.projector_parameters, loop.settings.projector_rate)
    if "gains" in wanted:
        rates |= dict.fromkeys(vlm.gain_parameters, loop.settings.gain_rate)
    if "weights" in wanted:
        rates |= dict.fromkeys(vlm.matrix_parameters, loop.settings.weight_rate)
    if "gains" not in wanted:
        return Trainer(vlm, rates, [loop.pairs])
    return Trainer(vlm, rates, [loop.pairs, loop.texts], [loop.settings.pair_share, 1.0])


def polish(loop: Loop, run: Run, watch: Watch) -> dict[str, Tensor]:
    """Trains the champion as it stands, then rounds what was trained as it will be saved.

    What comes back are those weights, and all the others that may have been trained before.
    """
    version, step = loop.settings.rounds + 1, run.history.polished
    vlm = loop.evaluator.vlm
    names = set(vlm.tunable)
    if (trainer := polisher(loop)) is not None:
        names |= set(trainer.names)
        if step is None:
            with watch.stage("polish"):
                seed = [loop.settings.seed, 0]
                step = trainer.step(
                    Course.as_it_stands(loop.settings.final_steps, seed), anew(loop)
                )
            if step.kept:
                run.save_projector(version, trainer.state(moments=False))
            run.add_polish(step)
        elif step.kept:
            trainer.load(run.load_projector(version))
    return round_weights(vlm, sorted(names))


def anew(loop: Loop) -> dict[str, Tensor] | None:
    """The projector to begin with, where it is to be trained from scratch."""
    fresh = loop.settings.projector_start == "fresh" and "projector" in tuned(loop)
    return loop.evaluator.vlm.fresh_projector(loop.settings.seed) if fresh else None


def round_weights(vlm: VLM, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Rounds what may have been trained to what the disk holds."""
    rounded = {name: w.to(vlm.disk_dtype) for name, w in vlm.weights(names).items()}
    vlm.set_weights(rounded)
    return rounded


def uniform(loop: Loop) -> Policy:
    """The baseline: every prunable matrix at the same ratio; where the ratio is of what a decoder
    spends, at the one level that takes it."""
    if loop.settings.budget != "weights":
        return loop.space.decode(loop.space.budget.uniform(np.random.default_rng(0)))
    return Policy({SPARSITY: {"blocks.*": loop.settings.ratio}})


def prune_uniformly(loop: Loop) -> None:
    """Puts the baseline on the model, pruned exactly."""
    prune_policy(loop, uniform(loop), published=True)


def on_text(loop: Loop) -> Loop:
    """The same loop, its Hessians fed by the text segments alone."""
    return replace(loop, hessian_batches=loop.evaluator.calibrated.texts, tokens="text")


def prune_policy(
    loop: Loop,
    policy: Policy,
    advance: Callable[[], None] = lambda: None,
    published: bool = False,
) -> dict[str, Packed]:
    """Puts a policy on the model, its sparsity pruned exactly rather than stitched.

    `published` prunes as SparseGPT was, unless the settings ask for more.
    """
    evaluator, vlm = loop.evaluator, loop.evaluator.vlm
    evaluator.put_on(_without_sparsity(policy))
    family = evaluator.families.get(SPARSITY)
    if family is None:
        return {}
    edits = family.edits(policy.table(SPARSITY), vlm.body)
    levels = {matrix: level for matrix, level in edits.items() if not vlm.idle(matrix)}
    return prune_exactly(
        evaluator.store,
        vlm,
        loop.hessian_batches,
        levels,
        loop.solver,
        loop.tokens,
        advance,
        loop.settings.true_sequential,
        _ridge(loop, published),
    )


def _ridge(loop: Loop, published: bool) -> float:
    """How far matrices are held back from following the drift of their inputs; 0: they do not."""
    chosen = loop.settings.drift_ridge
    as_published = published or loop.settings.exact or not loop.solver.mends
    return chosen if chosen >= 0 else 0.0 if as_published else RIDGE


def _polish(loop: Loop) -> str:
    """What the settings have trained at the end."""
    return polish_of(loop.settings, sum(m.size for m in loop.evaluator.vlm.matrices))


def _without_sparsity(policy: Policy) -> Policy:
    """What else a policy does: its sparsity is not stitched from the store, it is pruned."""
    return Policy({name: table for name, table in policy.tables.items() if name != SPARSITY})


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
