"""slimsearch compare: baselines and ablations under one evaluator, in one table."""

from pathlib import Path
from typing import Annotated

import typer

from slimsearch.cli.options import with_settings
from slimsearch.settings import Settings


@with_settings
def command(
    settings: Settings,
    model: Annotated[str, typer.Argument(help="Folder or hub id of a model; 'demo' is ours.")],
    only: Annotated[
        str, typer.Option(help="Rows to run, such as 'uniform, searched'. Default: all.")
    ] = "",
) -> None:
    """Compare our search with baselines, and with parts of it left out. Run again to go on."""
    from dataclasses import replace

    from slimsearch import api, comparing, display
    from slimsearch.display import Display

    chosen = api.anchored(replace(settings, model=model))
    folder = Path(settings.out or f"comparisons/{Path(model).name}-{settings.ratio:g}")
    with Display() as watch:
        found = comparing.compare(chosen, only, folder, watch)
    if settings.json:
        display.say((folder / "compare.json").read_text("utf-8"))
        return
    display.grid(f"{model} at {settings.ratio:g}", comparing.COLUMNS, comparing.cells(found))
    display.say(f"Wrote {folder / 'compare.json'} and {folder / 'compare.md'}.")
