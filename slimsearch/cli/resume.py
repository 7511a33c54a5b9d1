"""slimsearch resume: goes on where a search was interrupted."""

from pathlib import Path
from typing import Annotated, Any

import typer

from slimsearch.cli.options import with_changes
from slimsearch.errors import Stopped
from slimsearch.record import history
from slimsearch.settings import WHERE


@with_changes(*WHERE)
def command(
    changes: dict[str, Any],
    run: Annotated[Path, typer.Argument(help="A run folder that `slimsearch run` made.")],
    allow_drift: Annotated[
        bool,
        typer.Option(
            "--allow-drift",
            help="Go on though model, data, settings or versions have changed; the result says so.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Go on with an interrupted search, to the same end as an unbroken one."""
    try:
        from slimsearch.cli import searching
    except Stopped as stop:  # what it imports takes seconds
        raise Stopped(f"{stop} Go on with: {history.resume_line(run)}", stop.exit_code) from stop
    searching.go_on(run, allow_drift, changes, json)
