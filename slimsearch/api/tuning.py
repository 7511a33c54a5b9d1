"""Prune, then train the projector: the last step of a search as a recipe of its own.

It works on any pruned model, whoever pruned it, with its blocks running as they are to. Nothing but
the projector changes, and with LoRA the decoder's matrices where they are not zero; where held-back
pairs are not answered better, not even that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slimsearch import artefact, calibration, plugins, settings
from slimsearch.api import assembly
from slimsearch.calibration import Pairs
from slimsearch.errors import CalibrationError, ModelError, RunError
from slimsearch.model import checkpoint, conversation, loading, placing
from slimsearch.model.batch import Calibrated
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.model.vlm import VLM
from slimsearch.record.candidate import ProjectorStep, Row
from slimsearch.searching.polishing import round_weights
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings
from slimsearch.teaching import adapting, lessons
from slimsearch.teaching.lessons import Subject
from slimsearch.teaching.training import Course, Trainer


@dataclass(frozen=True)
class Tuned:
    """`table` compares before and after on pairs that were not trained on, where some are left."""

    folder: Path
    step: ProjectorStep
    table: tuple[Row, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def tune(
    source: str, changes: Mapping[str, Any], folder: Path, teacher: str, watch: Watch
) -> Tuned:
    """Trains the projector of a run's champion or of any model folder, into a new folder.

    `changes` are settings in place of the run's own, or of the defaults.
    """
    if folder.exists():
        raise RunError(f"{folder} exists already; choose another folder with --out.")
    chosen, pruned = _chosen(source, changes)
    adapting.check(chosen.lora_rank, chosen.device_map)
    _check_projector(pruned)
    pairs = calibration.gather_pairs_only(chosen)
    for note in pairs.notes:
        watch.note(note)
    with watch.stage("load"):
        vlm = placing.load(pruned, chosen, watch.note)
        dense = _dense(teacher or chosen.model, chosen, pairs, watch)
    speech = conversation.load(pruned)
    used, held = (
        conversation.pair_batches(
            vlm,
            speech,
            conversation.answered(dense, speech, some) if dense else some,
            assembly.PAIR_TOKENS,
        )
        for some in (pairs.used, pairs.held)
    )
    follows = dense if chosen.projector_lessons == "dense" else None
    learnt = lessons.subject(used, follows, chosen.other_pictures)
    if not learnt.possible:
        raise CalibrationError(
            f"{len(pairs.used)} image-text pairs are too few to train a projector and to hold some "
            f"back for judging it. Give more with --pairs or --pair-count."
        )
    task, held_out = plugins.find("tasks", "pairs")(), Calibrated((), tuple(held))
    facts = artefact.facts_of(vlm)
    rows = [Row("before", facts["sparsity"], task.measure(vlm, held_out))]
    with watch.stage("projector"):
        step = _train(vlm, learnt, chosen)
    if step.kept:
        round_weights(vlm)
    rows.append(Row("after", facts["sparsity"], task.measure(vlm, held_out)))
    table = tuple(rows) if held else ()
    if chosen.lora_rank:
        facts["lora"] = {"rank": chosen.lora_rank, "alpha": adapting.ALPHA * chosen.lora_rank}
    facts |= artefact.zeros_of(vlm)
    facts |= {"projector": asdict(step), "table": [asdict(row) for row in table]}
    artefact.write(vlm, folder, facts, {"hf": plugins.find("exporters", "hf")()})
    return Tuned(folder, step, table)


def _train(vlm: VLM, learnt: Subject, chosen: Settings) -> ProjectorStep:
    """The projector and, where it is asked for, LoRA, merged once it is trained."""
    anew = vlm.fresh_projector(chosen.seed) if chosen.projector_start == "fresh" else None
    with adapting.adapted(vlm, chosen.lora_rank, chosen.seed) as beside:
        rates = dict.fromkeys(vlm.projector_parameters, chosen.projector_rate)
        rates |= dict.fromkeys(beside, chosen.lora_rate)
        trainer = Trainer(vlm, rates, [learnt])
        return trainer.step(Course.as_it_stands(chosen.final_steps, [chosen.seed, 0]), anew)


def _chosen(source: str, changes: Mapping[str, Any]) -> tuple[Settings, Checkpoint]:
    """The settings, whose `model` is the dense one where it is known, and the pruned model."""
    champion = artefact.champion(Path(source))
    if champion is not None:
        base = settings.read(Path(source) / "settings.toml")
        return settings.change(base, dict(changes), "the command line"), checkpoint.find(
            str(champion)
        )
    found = checkpoint.find(source)
    base = replace(Settings(), model=artefact.record_of(found.folder).get("base", ""))
    return settings.change(base, dict(changes), "the command line"), found


def _check_projector(pruned: Checkpoint) -> None:
    if not loading.architecture_of(pruned).sees:
        raise ModelError(f"{pruned.folder} is a text-only model: it has no projector to tune.")


def _dense(name: str, chosen: Settings, pairs: Pairs, watch: Watch) -> VLM | None:
    """The dense model where it is asked for; only what needs it insists on it."""
    silent = any(turn.answer is None for pair in pairs.used + pairs.held for turn in pair.turns)
    if not silent and chosen.projector_lessons == "answers":
        return None
    try:
        if not name:
            raise ModelError("What this model was before it was pruned is not known.")
        return placing.load(checkpoint.find(name), chosen, watch.note)
    except ModelError as error:
        if silent:
            raise CalibrationError(
                f"{error} Some pictures come without text: say who answers, --teacher MODEL."
            ) from None
        watch.note(f"{error} The projector learns the pairs' answers; --teacher MODEL: its words.")
        return None
