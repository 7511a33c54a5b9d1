"""slimsearch list: the plug-ins of a kind, and what stands on the shelves."""

from typing import Annotated

import typer


def command(
    kind: Annotated[str, typer.Argument(help="solvers, strategies, ...; nothing: all kinds.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List plug-ins, policies and calibrations by kind."""
    from slimsearch import display, plugins, shelf

    shelves = ("policies", "calibration")
    kinds = [kind] if kind else [*plugins.KINDS, *shelves]
    found: dict[str, dict[str, str]] = {}
    for one in kinds:
        if one in shelves:
            found[one] = {name: shelf.about(one, name) for name in shelf.names(one)}
        else:
            found[one] = {name: plugins.about(one, name) for name in plugins.names(one)}
    if json:
        display.as_json(found)
        return
    for one, names in found.items():
        display.grid(one, ("name", "about"), [[name, about] for name, about in names.items()])
