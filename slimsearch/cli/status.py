"""slimsearch status: how far a run has come, read from its journal while it goes on."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show how far a run has come."""
    from slimsearch import display, settings
    from slimsearch.run import end_in, in_use, records_of, rounds_in, scores_in

    records = records_of(run)
    chosen = settings.read(run / "settings.toml")
    rounds, scores = rounds_in(records), scores_in(records)
    end = end_in(records)
    state = "finished" if end else "going on" if in_use(run) else "interrupted"
    if json:
        facts = {
            "run": str(run),
            "state": state,
            "rounds": len(rounds),
            "of": chosen.rounds,
            "scores": len(scores),
            "failed": sum(not score.ok for score in scores),
            "champion": rounds[-1].champion.candidate if rounds else None,
            "table": end["table"] if end else None,
        }
        display.as_json(facts)
        return
    display.say(
        f"{run}: {state}; {len(rounds)} of {chosen.rounds} rounds closed, {len(scores)} scores, "
        f"{sum(not score.ok for score in scores)} failed."
    )
    if rounds:
        cells = [display.round_cells(done) for done in rounds]
        display.grid("Rounds", list(cells[-1]), [list(row.values()) for row in cells])
    if end:
        display.results(end["table"])
    if state == "interrupted":
        display.say(f"To go on: slimsearch resume {run}")
