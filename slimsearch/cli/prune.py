"""slimsearch prune: one policy, pruned exactly, without a search."""

from slimsearch.cli.options import NamedModel, into_folder, with_settings
from slimsearch.settings import Settings


@with_settings
def command(settings: Settings, given: NamedModel = None) -> None:
    """Prune a model by one policy (uniform unless --policy names another) into --out."""
    from dataclasses import asdict, replace

    from slimsearch import display
    from slimsearch.api.pruning import prune
    from slimsearch.display import Display

    settings, folder = into_folder(settings, given, "pruned")
    if settings.policy == Settings.policy:
        settings = replace(settings, policy="uniform")
    with Display() as watch:
        done = prune(settings, folder, watch)
    rows = [asdict(row) for row in done.table]
    if settings.json:
        facts = {"folder": str(done.folder), "sparsity": done.sparsity, "table": rows}
        display.as_json(facts)
        return
    if rows:
        display.results(rows)
    display.say(f"Wrote {done.folder}: {done.sparsity:.1%} of the prunable weights are zero.")
