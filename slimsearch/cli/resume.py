"""slimsearch resume: goes on where a search was interrupted."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run folder that `slimsearch run` made.")],
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Go on with an interrupted search, to the same end as an unbroken one."""
    from slimsearch.cli import searching

    searching.go_on(run, json)
