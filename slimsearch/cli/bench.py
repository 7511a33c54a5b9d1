"""slimsearch bench: how fast an export is in every engine at hand, and which one to use."""

from pathlib import Path
from typing import Annotated, Optional

import typer


def command(
    export: Annotated[
        Path, typer.Argument(help="An export, in one form or several; or a finished run.")
    ],
    against: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="An export of the dense model in the same forms, to compare with."),
    ] = None,
    uniform: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="An export of a uniformly pruned model, to stand between the two."),
    ] = None,
    to: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Of a run: the form that all three are timed in; again for more."),
    ] = None,
    prompt_tokens: Annotated[str, typer.Option(help="Lengths of prompts.")] = "64,256,640",
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after each.")] = 64,
    threads: Annotated[int, typer.Option(min=0, help="0 leaves it to the engine.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every engine.")] = 5,
    chart: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Also draw bars into this .svg file."),
    ] = None,
    deepsparse_python: Annotated[
        str, typer.Option(help="A Python that has deepsparse 1.8.0, where this one has not.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Time an export in every engine at hand, beside the dense model.

    Of a run, its champion, its uniform baseline and its dense model are exported and timed, and
    what was found is kept as bench.json in the run, where a report looks for it.
    """
    from slimsearch import display, files
    from slimsearch.api import benching, timing
    from slimsearch.display import Display
    from slimsearch.errors import SettingsError

    try:
        lengths = [int(part) for part in prompt_tokens.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise SettingsError(f"--prompt-tokens {prompt_tokens} cannot be: give 64,256,640 or so.")
    choices = {"deepsparse_python": deepsparse_python}
    run = timing.is_run(export)
    if run and (against or uniform):
        raise SettingsError(
            f"{export} is a run, which knows its dense model and prunes its own baseline. Leave "
            f"out --against and --uniform."
        )
    if to and not run:
        raise SettingsError(f"--to says in which form a run is timed; {export} is an export.")
    with Display() as watch:
        if run:
            forms = to or ["native"]
            found = timing.bench(
                export, forms, lengths, new_tokens, threads, rounds, choices, watch
            )
        else:
            found = benching.bench(
                export, against, lengths, new_tokens, threads, rounds, choices, watch, uniform
            )
    if json:
        display.as_json(found.as_dict())
    else:
        display.speeds(found.rows)
        for line in (*found.notes, *found.verdict):
            display.say(line)
    if chart is not None:
        files.write(chart, benching.draw(found).encode())
