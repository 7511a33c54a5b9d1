"""slimsearch show: a policy as bars, one for each part."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    policy: Annotated[
        str, typer.Argument(help="A policy or space: a name, a file, or a run folder.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show a policy, part by part."""
    from slimsearch import display, shelf
    from slimsearch import policy as policies
    from slimsearch.record import history

    run, raised = Path(policy), None
    if (run / history.JOURNAL).is_file():
        told = history.read(run)
        told.check_written("best.toml")
        raised = told.raised
    found = policies.read(run / "best.toml" if run.is_dir() else shelf.find("policies", policy))
    if json:
        tables = {name: dict(table) for name, table in found.tables.items()}
        known = {} if raised is None else {"raised_damping": raised}
        display.as_json({"name": found.name, "about": found.about, **known, **tables})
        return
    display.say(f"{found.name}: {found.about}")
    for family, table in found.tables.items():
        shares = {key: v for key, v in table.items() if isinstance(v, int | float)}
        shares = shares if family == policies.SPARSITY else {}
        if shares:
            display.bars(f"[{family}]", shares)
        rest = [[key, str(value)] for key, value in table.items() if key not in shares]
        if rest:
            display.grid(f"[{family}]", ("part", "value"), rest)
    for during, matrices in (raised or {}).items():
        display.say(f"{during}: {history.raised_sentence(matrices)}")
