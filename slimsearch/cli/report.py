"""slimsearch report: what runs searched and found, as one page to look at."""

from pathlib import Path
from typing import Annotated, Optional

import typer


def command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, compare or sweep.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--out", "-o", help="A folder that does not exist yet. Default: reports/RUN, numbered."
        ),
    ] = None,
    bench: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="What `slimsearch bench --json` printed; RUN/bench*.json is found."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a report of runs: one HTML page, and its figures as SVG and PNG."""
    from slimsearch import display, files, reporting

    folder = out or files.free_folder(Path("reports") / runs[0].resolve().name)
    written = reporting.report(runs, folder, bench or ())
    if json:
        display.as_json({"page": str(written[0]), "figures": [str(file) for file in written[1:]]})
        return
    display.say(f"Wrote {written[0]} and {len(written) - 1} figures beside it.")
