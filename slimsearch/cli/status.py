"""slimsearch status: how far a run has come, read from its journal while it goes on."""

from pathlib import Path
from typing import Annotated

import typer

MOST = 30  # lines of a kind; --json has all failures


def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show how far a run has come."""
    from slimsearch import display, settings
    from slimsearch.record import history

    found = history.glance(run, MOST)
    of = settings.read(run / "settings.toml").rounds
    state, rounds, end = history.state(found), list(found.rounds.values()), found.end
    if json:
        facts = {
            "run": str(run),
            "state": state,
            "rounds": found.closed,
            "of": of,
            "scored": found.scored,
            "failed": len(found.failures),
            "failures": {score.candidate: score.failure for score in found.failures},
            "given_up": {score.candidate: score.failure for score in found.given_up},
            "champion": rounds[-1].champion.candidate if rounds else None,
            "drift": found.drift,
            "raised_damping": found.raised,
            "table": end["table"] if end else None,
        }
        display.as_json(facts)
        return
    display.say(f"{run}: {history.summary(found, of)}")
    for score in found.failures[-MOST:]:
        display.say(f"{score.candidate} failed: {score.failure}")
    for score in found.given_up[-MOST:]:
        display.say(
            f"{score.candidate} failed, as all did that it was scored with: {score.failure}"
        )
    for line in found.drift:
        display.say(f"Drift: {line}.")
    for during, raised in found.raised.items():
        display.say(f"{during}: {history.raised_sentence(raised)}")
    if rounds:
        cells = [display.round_cells(done) for done in rounds[-MOST:]]
        display.grid("Rounds", list(cells[-1]), [list(row.values()) for row in cells])
    if end:
        display.results(end["table"])
    if state == "interrupted":
        display.say(f"To go on: {history.resume_line(run)}")
