"""One policy, pruned exactly and written: no search.

With `stream`, one decoder block is in memory at a time: it is read, pruned, written over its own
bytes in the copy, and forgotten. Memory then does not grow with the number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slimsearch import artefact, files, settings
from slimsearch.api import assembly, inputs
from slimsearch.api.inputs import Given
from slimsearch.contracts import Family
from slimsearch.errors import CalibrationError, PolicyError, RunError
from slimsearch.model import streaming
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM
from slimsearch.policy import SPARSITY, Policy
from slimsearch.record import changes, history, results
from slimsearch.record.candidate import Row
from slimsearch.record.history import raised_sentence
from slimsearch.searching import repruning
from slimsearch.searching.examine import Examiner
from slimsearch.searching.space import Space
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings
from slimsearch.surgery.masks import rounded
from slimsearch.surgery.walk import walk


@dataclass(frozen=True)
class PrunedModel:
    """`table` compares with the dense model; it is empty for a streamed one."""

    folder: Path
    sparsity: float
    table: tuple[Row, ...]


def prune(settings: Settings, folder: Path, watch: Watch) -> PrunedModel:
    """Prunes settings.model by settings.policy into a new model folder."""
    if folder.exists():
        raise RunError(f"{folder} exists already; choose another folder with --out.")
    given = inputs.gather(settings)
    return (_prune_streamed if settings.stream else _prune_resident)(given, folder, watch)


def uniform(run: Path, watch: Watch) -> Path:
    """What a run's search has to beat, as a model folder in the run: the model that it began with,
    pruned alike everywhere by the run's ratio, solver and calibration. Made once."""
    folder = run / results.UNIFORM
    if folder.is_dir():
        return folder
    chosen = settings.read(run / history.SETTINGS)
    given = inputs.gather(
        replace(chosen, executor="local", projector_steps=0, polish="none", out="")
    )
    _check_same(run, given)
    bench = assembly.load(given, watch)
    loop, vlm = bench.loop, bench.loop.evaluator.vlm
    if SPARSITY not in loop.evaluator.families:
        raise PolicyError(
            f"{run} searched a policy without sparsity, so there is no uniform pruning to hold it "
            f"against. Leave 'uniform' out."
        )
    policy = repruning.uniform(loop)
    with watch.stage("uniform", len(vlm.matrices)) as advance:
        repruning.prune_policy(loop, policy, advance, published=True)
    facts = assembly.facts(given, loop.evaluator.store.sparsities(vlm), vlm)
    artefact.write(vlm, folder, {**facts, "policy": policy.tables}, bench.exporters)
    return folder


def _check_same(run: Path, given: Given) -> None:
    """Refuses a model or calibration that is not the run's any more."""
    before = history.read(run).fingerprint
    keys = ("model", "calibration")
    was, now = ({key: some.get(key) for key in keys} for some in (before, given.fingerprint))
    if changed := changes.between(was, now):
        raise RunError(
            f"What {run} began with has changed since ({'; '.join(changed)}), so its uniform "
            f"baseline cannot be pruned. Restore it, or name a model that was pruned elsewhere."
        )


def _prune_resident(given: Given, folder: Path, watch: Watch) -> PrunedModel:
    untrained = replace(given.settings, projector_steps=0, polish="none")
    bench = assembly.load(replace(given, settings=untrained), watch)
    loop, vlm = bench.loop, bench.loop.evaluator.vlm
    policy = _only_policy(loop.space, given)
    examiner = Examiner(loop, bench.tasks, bench.held_out, watch)
    examiner.examine("dense")
    with watch.stage("prune", len(vlm.matrices)) as advance:
        repruning.prune_policy(loop, policy, advance, published=True)
        raised = loop.evaluator.store.take_raised()
    examiner.examine(f"{given.policy.name} {given.settings.solver}")
    facts = assembly.facts(given, loop.evaluator.store.sparsities(vlm), vlm)
    facts |= _raised(raised, watch)
    rows = [asdict(row) for row in examiner.rows]
    facts |= {"policy": policy.tables, "table": rows}
    artefact.write(vlm, folder, facts, bench.exporters)
    return PrunedModel(folder, facts["sparsity"], tuple(examiner.rows))


def _prune_streamed(given: Given, folder: Path, watch: Watch) -> PrunedModel:
    settings = given.settings
    _check_answers(given)
    with watch.stage("load"):
        vlm = streaming.load(given.checkpoint, settings.device, settings.dtype, settings.attention)
        calibrated = assembly.calibrate(given, vlm)
    families, space = assembly.span(given, vlm)
    policy = _only_policy(space, given)
    _check_streamed(families, vlm)
    family = families.get(SPARSITY)
    levels = family.edits(policy.table(SPARSITY), vlm.body) if family is not None else {}
    with files.new_folder(folder) as copy:
        given.checkpoint.copy(copy, {})
        with watch.stage("prune", len(vlm.matrices)) as advance:
            sparsities, raised = _prune_blocks(given, vlm, calibrated, levels, copy, advance)
        facts = assembly.facts(given, sparsities, vlm) | _raised(raised, watch)
        artefact.describe(copy, {**facts, "policy": policy.tables})
    return PrunedModel(folder, facts["sparsity"], ())


def _prune_blocks(
    given: Given,
    vlm: VLM,
    calibrated: Calibrated,
    levels: Mapping[str, float],
    copy: Path,
    advance: Callable[[], None],
) -> tuple[dict[str, float], dict[str, float]]:
    """Prunes block by block, each matrix written as soon as it is solved.

    Gives by matrix its share of zeros, and the damping it took where that had to be raised.
    """
    settings = given.settings
    solver = assembly.make("solvers", settings.solver, settings)
    ridge = max(settings.drift_ridge, 0.0)  # unless asked for, as published
    sparsities: dict[str, float] = {}
    raised: dict[str, float] = {}
    for stop in walk(
        vlm,
        calibrated.all,
        settings.tokens,
        pruned_inputs=True,
        true_sequential=settings.true_sequential,
        by_set=solver.by_set,
        drift=ridge > 0 and not settings.true_sequential,
    ):
        for matrix in stop.matrices:
            weight = vlm.linear(matrix).weight.data
            if level := levels.get(matrix, 0.0):
                followed = stop.hessian.follow(weight, ridge)
                (pruned,) = solver.prune(followed, stop.hessian, [level])
                weight.copy_(rounded(pruned.weights, *vlm.dtypes))
                key = vlm.disk_name(vlm.matrix_parameter(matrix))
                given.checkpoint.overwrite(copy, {key: weight})
            sparsities[matrix] = int((weight == 0).sum()) / weight.numel()
            if stop.hessian.raised:
                raised[matrix] = stop.hessian.raised
            advance()
    return sparsities, raised


def _raised(raised: Mapping[str, float], watch: Watch) -> dict[str, Any]:
    """What slimsearch.json records of dampings that were raised, said aloud."""
    if raised:
        watch.note(raised_sentence(raised))
    return {"raised_damping": dict(raised)}


def _check_answers(given: Given) -> None:
    """Refuses pictures without text: answering them would need the whole model."""
    also = [pair for more in given.material.also for pair in more.pairs]
    for pair in (*given.material.pairs, *also):
        if any(turn.answer is None for turn in pair.turns):
            raise CalibrationError(
                f"{pair.origin} has no answer, and a streamed model gives none: it is never in "
                f"memory as a whole. Give pairs with text, or leave out --stream."
            )


def _check_streamed(families: Mapping[str, Family], vlm: VLM) -> None:
    """Refuses what takes more than a block at a time."""
    others = sorted(families.keys() - {SPARSITY})
    if others or vlm.route:
        what = f"[{others[0]}] changes" if others else f"{vlm.checkpoint.folder} says"
        raise PolicyError(
            f"{what} how blocks run, and a streamed model is never in memory as a whole. Leave out "
            f"--stream."
        )


def _only_policy(space: Space, given: Given) -> Policy:
    """The policy where there is nothing to choose."""
    if not space.single:
        raise PolicyError(
            f"Policy '{given.settings.policy}' still has ranges, so there is something to search: "
            f"use slimsearch run, or give a policy of numbers (a run's best.toml, or 'uniform')."
        )
    return space.decode((0,) * len(space.genes))
