"""slimsearch paper: SlimLLaVA's tables and figures, for the model and data at hand."""

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
        str, typer.Option(help="Such as 'table-1, figure-3'. Default: Tables 1-4, Figures 1 and 3.")
    ] = "",
    figure_segments: Annotated[
        str, typer.Option(help="Figure 3: numbers of text segments.")
    ] = "8,16,32,64",
    figure_lengths: Annotated[str, typer.Option(help="Figure 3: tokens a segment.")] = "64,128,256",
    scienceqa: Annotated[str, typer.Option(help="Where ScienceQA's files are.")] = "",
    vizwiz: Annotated[str, typer.Option(help="Where VizWiz's files are.")] = "",
    mmvet: Annotated[str, typer.Option(help="Where MM-Vet's files are.")] = "",
    llava_bench: Annotated[str, typer.Option(help="Where LLaVA-Bench's files are.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Questions of each; 0: all.")] = 0,
    judge: Annotated[
        str, typer.Option(help="An OpenAI-compatible address that grades MM-Vet and LLaVA-Bench.")
    ] = "",
    judge_model: Annotated[str, typer.Option(help="The judge's model.")] = "",
    timed_in: Annotated[
        str, typer.Option(help="Figure 1: the form that runs are timed in; none: not timed.")
    ] = "native",
) -> None:
    """Make the paper's tables and figures again, published numbers beside. Run again to go on."""
    from dataclasses import replace

    from slimsearch import display, replicating
    from slimsearch.api import runs, sweeping
    from slimsearch.display import Display

    chosen = runs.anchored(replace(settings, model=model))
    sizes = (
        sweeping.numbers(figure_segments, "--figure-segments"),
        sweeping.numbers(figure_lengths, "--figure-lengths"),
    )
    given = {"scienceqa": scienceqa, "vizwiz": vizwiz, "mmvet": mmvet, "llava_bench": llava_bench}
    few = ["--limit", str(limit)] if limit else []
    graded = ["--judge", judge, "--judge-model", judge_model] if judge else []
    asked = {
        name: ["--data", place, *few, *(graded if name in ("mmvet", "llava_bench") else [])]
        for name, place in given.items()
        if place
    }
    folder = Path(settings.out or f"papers/{Path(model).name}")
    with Display() as watch:
        form = "" if timed_in == "none" else timed_in
        replicating.replicate(chosen, only, sizes, asked, form, folder, watch)
    if settings.json:
        display.say((folder / replicating.FACTS).read_text("utf-8"))
        return
    display.say(f"Wrote {folder / replicating.PAGE} and {folder / replicating.FACTS}.")
