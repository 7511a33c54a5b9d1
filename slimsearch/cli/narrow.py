"""slimsearch narrow: a smaller dense model, without some heads and FFN channels."""

from slimsearch.cli.options import NamedModel, into_folder, with_settings
from slimsearch.settings import Settings


@with_settings
def command(settings: Settings, given: NamedModel = None) -> None:
    """Remove whole attention heads and FFN channels, as LLM-Pruner does, into --out."""
    from dataclasses import asdict, replace

    from slimsearch import display
    from slimsearch.api.narrowing import narrow
    from slimsearch.display import Display

    settings, folder = into_folder(settings, given, "narrowed")
    with Display() as watch:
        done = narrow(replace(settings, policy="uniform"), folder, watch)
    rows = [asdict(row) for row in done.table]
    if settings.json:
        facts = {"folder": str(done.folder), "removed": done.removed, "table": rows}
        display.as_json(facts)
        return
    display.results(rows)
    display.say(f"Wrote {done.folder}: {done.removed:.1%} of the prunable weights are gone.")
