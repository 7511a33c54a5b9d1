"""What is trained once a champion is crowned: projector, norms' gains, weights that were kept."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from slimsearch.model.vlm import VLM
from slimsearch.record.run import Run
from slimsearch.searching.parts import Loop
from slimsearch.searching.watch import Watch
from slimsearch.settings import polish_of
from slimsearch.teaching.training import Course, Trainer


def tuned(loop: Loop) -> list[str]:
    """What of the champion is trained, besides what its pruning mends."""
    wanted = _wanted(loop) if loop.settings.final_steps and loop.texts.possible else "none"
    return [
        *(["projector"] if loop.trainer is not None else []),
        *(["gains"] if wanted in ("gains", "all") else []),
        *(["weights"] if wanted == "all" else []),
    ]


def polisher(loop: Loop) -> Trainer | None:
    """What trains the champion alone, or None where nothing is to be trained."""
    wanted, vlm = tuned(loop), loop.evaluator.vlm
    if not wanted or not loop.settings.final_steps or _wanted(loop) == "none":
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


def _wanted(loop: Loop) -> str:
    """What the settings have trained at the end."""
    return polish_of(loop.settings, sum(m.size for m in loop.evaluator.vlm.matrices))
