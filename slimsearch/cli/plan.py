"""slimsearch plan: what a run would do, need and take, measured on one probe candidate."""

from slimsearch.cli.options import with_settings
from slimsearch.settings import Settings


@with_settings
def command(settings: Settings) -> None:
    """Say what a run would prune, need and take, from one probe candidate."""
    show(settings)


def show(settings: Settings) -> None:
    from dataclasses import asdict

    from slimsearch import display
    from slimsearch.api.planning import plan
    from slimsearch.display import Display

    with Display() as watch:
        found = plan(settings, watch)
    if settings.json:
        display.as_json(asdict(found))
        return
    display.grid(f"Plan for {settings.model}", ("what", "value"), found.lines())
    display.grid("Seconds, from one probe candidate", ("stage", "estimate"), found.times())
