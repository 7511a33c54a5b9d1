"""slimsearch tune: the projector of a pruned model, trained to suit it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slimsearch.cli.options import with_changes


@with_changes(
    "pairs", "pair_count", "calibration", "projector_lessons", "final_steps", "projector_rate",
    "projector_start", "lora_rank", "lora_rate", "seed", "device", "dtype", "attention",
    "device_map", "max_memory", "json",
)  # fmt: skip
def command(
    changes: dict[str, Any],
    source: Annotated[str, typer.Argument(help="A finished run folder, or a pruned model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder that does not exist yet.")],
    teacher: Annotated[
        str,
        typer.Option(
            help="The dense model, by folder or hub id, to follow, and to answer pictures that "
            "come without text. Default: the one that the run or the pruned model names."
        ),
    ] = "",
) -> None:
    """Retrain the projector of a pruned model on image-text pairs, with LoRA if you like."""
    from dataclasses import asdict

    from slimsearch import display
    from slimsearch.api.tuning import tune
    from slimsearch.display import Display

    with Display() as watch:
        done = tune(source, changes, out, teacher, watch)
    if changes.get("json"):
        display.as_json(done.as_dict())
        return
    if done.table:
        display.results([asdict(row) for row in done.table])
    step = done.step
    if step.kept:
        went = f"The loss on held-back pairs went from {step.before:.4f} to {step.after:.4f}"
        display.say(f"{went}{step.note and ': '}{step.note}.")
    else:
        display.say(f"The step {step.note}: the model stays as it was.")
    display.say(f"Wrote {done.folder}.")
