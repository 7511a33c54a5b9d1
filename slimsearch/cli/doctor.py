"""slimsearch doctor: what is here, what is missing, what that costs and how to get it."""

from typing import Annotated

import typer


def command(
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Look at this machine: Python, torch, processor, GPU, engines."""
    from dataclasses import asdict

    from slimsearch import display
    from slimsearch.machine import look

    found = look()
    if json:
        display.as_json([asdict(finding) for finding in found])
        return
    rows = [[f.part, "ok" if f.ok else "missing", f.found, f.advice] for f in found]
    display.grid("This machine", ("part", "state", "found", "what that means"), rows)
