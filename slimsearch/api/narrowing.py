"""A smaller dense model: whole heads and FFN channels removed, the structured baseline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from slimsearch import artefact, files
from slimsearch.api import assembly, inputs
from slimsearch.errors import RunError
from slimsearch.model import loading
from slimsearch.model.vlm import VLM
from slimsearch.record.candidate import ProjectorStep, Row
from slimsearch.searching import polishing
from slimsearch.searching.examine import Examiner
from slimsearch.searching.parts import Loop
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings
from slimsearch.surgery import groups
from slimsearch.teaching.training import Course


@dataclass(frozen=True)
class Narrowed:
    folder: Path
    removed: float  # of the prunable weights
    table: tuple[Row, ...]


def narrow(settings: Settings, folder: Path, watch: Watch) -> Narrowed:
    """Removes settings.ratio of the heads and channels of settings.model, into a new folder.

    Nothing is trained unless settings.polish names it.
    """
    if folder.exists():
        raise RunError(f"{folder} exists already; choose another folder with --out.")
    given = inputs.gather(settings)
    bench = assembly.load(given, watch)
    vlm, calibrated = bench.loop.evaluator.vlm, bench.loop.evaluator.calibrated
    groups.check(vlm)
    _note_heads(vlm, settings.ratio, watch)
    examiner = Examiner(bench.loop, bench.tasks, bench.held_out, watch)
    examiner.examine("dense")
    with watch.stage("gradients"):
        worth = groups.worth(vlm, (*calibrated.texts, *calibrated.pairs))
    before = _weights(vlm)
    groups.narrow(vlm, groups.choose(vlm, worth, settings.ratio))
    removed = 1 - _weights(vlm) / before
    examiner.examine("narrowed")
    step = None if settings.polish == "auto" else _train(bench.loop, watch)
    if step is not None:
        examiner.examine(f"narrowed + {' + '.join(polishing.tuned(bench.loop))}")
    facts = {
        **assembly.facts(given, dict.fromkeys((m.name for m in vlm.matrices), 0.0), vlm),
        "removed_with_heads_and_channels": removed,
        **({} if step is None else {"projector": asdict(step)}),
        "table": [asdict(row) for row in examiner.rows],
    }
    with watch.stage("export"), files.new_folder(folder) as place, loading.quiet_transformers():
        vlm.checkpoint.copy_beside(place)
        vlm.model.to(vlm.disk_dtype).save_pretrained(place)
        artefact.describe(place, facts)
    return Narrowed(folder, removed, tuple(examiner.rows))


def _note_heads(vlm: VLM, ratio: float, watch: Watch) -> None:
    """Says so where not as many heads can go as are asked for."""
    asked, left = groups.heads_left(vlm, ratio)
    if left != asked:
        text = vlm.model.config.get_text_config()
        watch.note(
            f"{left} of {text.num_key_value_heads} heads of keys stay in each block where --ratio "
            f"{ratio:g} would leave {asked}: transformers loads no '{text.model_type}' of width "
            f"{text.hidden_size} with so many. FFN channels make up for it."
        )


def _train(loop: Loop, watch: Watch) -> ProjectorStep | None:
    """What --polish asks for, to suit what is left."""
    trainer = polishing.polisher(loop)
    if trainer is None:
        return None
    with watch.stage("polish"):
        course = Course.as_it_stands(loop.settings.final_steps, [loop.settings.seed, 0])
        step = trainer.step(course, polishing.anew(loop))
    polishing.round_weights(loop.evaluator.vlm)
    return step


def _weights(vlm: VLM) -> int:
    return sum(vlm.linear(matrix.name).weight.numel() for matrix in vlm.matrices)
