"""slimsearch export: a finished run's champion, or any model, in another form."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    source: Annotated[str, typer.Argument(help="A finished run folder, or a model folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder that does not exist yet.")],
    to: Annotated[str, typer.Option(help="The form (slimsearch list exporters).")] = "hf",
) -> None:
    """Write a pruned model in another form."""
    from slimsearch import display
    from slimsearch.exporting import export

    display.say(f"Wrote {export(source, to, out)}.")
