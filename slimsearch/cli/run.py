"""slimsearch run: a search from settings to a pruned model."""

from slimsearch.cli.options import with_settings
from slimsearch.settings import Settings


@with_settings
def command(settings: Settings) -> None:
    """Search for the best way to prune a model, and write the champion."""
    from slimsearch.cli import plan, searching

    if settings.dry_run:
        plan.show(settings)
        return
    searching.start(settings)
