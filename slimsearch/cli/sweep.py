"""slimsearch sweep: how much calibration text a search needs."""

from pathlib import Path
from typing import Annotated

import typer

from slimsearch.cli.options import with_settings
from slimsearch.settings import Settings


@with_settings
def command(
    settings: Settings,
    model: Annotated[str, typer.Argument(help="Folder or hub id of a model; 'demo' is ours.")],
    segments: Annotated[str, typer.Option(help="Numbers of text segments.")] = "8,16,32,64",
    segment_lengths: Annotated[str, typer.Option(help="Tokens a segment.")] = "64,128,256",
) -> None:
    """Search with more and fewer, longer and shorter segments of text. Run again to go on."""
    from dataclasses import replace

    from slimsearch import display
    from slimsearch.api import comparing, runs, sweeping
    from slimsearch.display import Display

    chosen = runs.anchored(replace(settings, model=model))
    counts = sweeping.numbers(segments, "--segments")
    lengths = sweeping.numbers(segment_lengths, "--segment-lengths")
    folder = Path(settings.out or f"sweeps/{Path(model).name}-{settings.ratio:g}")
    with Display() as watch:
        found = sweeping.sweep(chosen, counts, lengths, folder, watch)
    if settings.json:
        display.say((folder / "sweep.json").read_text("utf-8"))
        return
    display.grid(f"{model} at {settings.ratio:g}", comparing.COLUMNS, comparing.cells(found))
    display.say(f"Wrote {folder / 'sweep.json'} and {folder / 'sweep.svg'}.")
