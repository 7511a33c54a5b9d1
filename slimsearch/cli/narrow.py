"""slimsearch narrow: a smaller dense model, without some heads and FFN channels."""

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
    """Remove whole attention heads and FFN channels, as LLM-Pruner does, into --out."""
    from dataclasses import asdict, replace
    from pathlib import Path

    from slimsearch import display
    from slimsearch.display import Display
    from slimsearch.errors import SettingsError
    from slimsearch.narrowing import narrow

    if given and settings.model not in (Settings.model, given):
        raise SettingsError(f"Two models are named, {given} and {settings.model}; name one.")
    if given:
        settings = replace(settings, model=given)
    if not settings.out:
        raise SettingsError("Say where the narrowed model goes: --out FOLDER.")
    with Display() as watch:
        done = narrow(replace(settings, policy="uniform"), Path(settings.out), watch)
    rows = [asdict(row) for row in done.table]
    if settings.json:
        facts = {"folder": str(done.folder), "removed": done.removed, "table": rows}
        display.as_json(facts)
        return
    display.results(rows)
    display.say(f"Wrote {done.folder}: {done.removed:.1%} of the prunable weights are gone.")
