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
    figures: Annotated[
        bool,
        typer.Option(
            "--figures", help="Figures 2-5 of the skipping paper instead: see --intervals."
        ),
    ] = False,
    intervals: Annotated[
        str, typer.Option(help="Figures: one block in so many runs otherwise.")
    ] = "2,3,4,6,8",
    starts: Annotated[
        str, typer.Option(help="Figure 4: the first block that may. Default: 0, 1/8, 1/4 of all.")
    ] = "",
) -> None:
    """Compare our search with baselines, and with parts of it left out. Run again to go on."""
    from dataclasses import replace

    from slimsearch import display
    from slimsearch.api import comparing, runs
    from slimsearch.display import Display

    chosen = runs.anchored(replace(settings, model=model))
    folder = Path(settings.out or f"comparisons/{Path(model).name}-{settings.ratio:g}")
    if figures:
        _figures(chosen, intervals, starts, folder)
        return
    with Display() as watch:
        found = comparing.compare(chosen, only, folder, watch)
    if settings.json:
        display.say((folder / "compare.json").read_text("utf-8"))
        return
    display.grid(f"{model} at {settings.ratio:g}", comparing.COLUMNS, comparing.cells(found))
    display.say(f"Wrote {folder / 'compare.json'} and {folder / 'compare.md'}.")


def _figures(chosen: Settings, intervals: str, starts: str, folder: Path) -> None:
    from slimsearch import display
    from slimsearch.api import sweeping
    from slimsearch.display import Display
    from slimsearch.replicating import skipping

    every = sweeping.numbers(intervals, "--intervals")
    begins = sweeping.numbers(starts, "--starts", least=0) if starts else []
    with Display() as watch:
        found = skipping.draw(chosen, every, begins, folder, watch)
    if chosen.json:
        display.say((folder / skipping.FILE).read_text("utf-8"))
        return
    display.grid(chosen.model, skipping.COLUMNS, skipping.cells(found))
    display.say(f"Wrote {folder / skipping.FILE} and figure-2 to figure-5 as .svg and .png.")
