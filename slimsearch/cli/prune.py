"""slimsearch prune: one policy, pruned exactly, without a search."""

from typing import Annotated, Optional

import typer

from slimsearch.cli.options import with_settings
from slimsearch.settings import Settings


@with_settings
def command(
    settings: Settings,
    given: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[MODEL]", help="The model; another way to say --model."),
    ] = None,
) -> None:
    """Prune a model by one policy (uniform unless --policy names another) into --out."""
    from dataclasses import asdict, replace
    from pathlib import Path

    from slimsearch import display
    from slimsearch.display import Display
    from slimsearch.errors import SettingsError
    from slimsearch.pruning import prune

    if given and settings.model not in (Settings.model, given):
        raise SettingsError(f"Two models are named, {given} and {settings.model}; name one.")
    if given:
        settings = replace(settings, model=given)
    if not settings.out:
        raise SettingsError("Say where the pruned model goes: --out FOLDER.")
    if settings.policy == Settings.policy:
        settings = replace(settings, policy="uniform")
    with Display() as watch:
        done = prune(settings, Path(settings.out), watch)
    rows = [asdict(row) for row in done.table]
    if settings.json:
        facts = {"folder": str(done.folder), "sparsity": done.sparsity, "table": rows}
        display.as_json(facts)
        return
    if rows:
        display.results(rows)
    display.say(f"Wrote {done.folder}: {done.sparsity:.1%} of the prunable weights are zero.")
