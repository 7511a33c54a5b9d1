"""A run's speed: its champion, its uniform baseline and its dense model, exported and timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slimsearch import artefact, files, settings
from slimsearch.api import benching, exporting, pruning
from slimsearch.api.benching import Result
from slimsearch.api.exporting import Choices
from slimsearch.errors import PolicyError
from slimsearch.record import history
from slimsearch.searching.watch import Watch

FILE = "bench.json"  # in the run, where a report looks for it


def is_run(folder: Path) -> bool:
    """Whether it is a finished run, rather than an export; one that is not finished is refused."""
    return artefact.champion(folder) is not None


def bench(
    run: Path,
    forms: Sequence[str],
    prompts: Sequence[int],
    new_tokens: int,
    threads: int,
    rounds: int,
    choices: Mapping[str, Any],
    watch: Watch,
) -> Result:
    """Exports all three for as long as it takes, and keeps what was timed in the run's folder."""
    dense = settings.read(run / history.SETTINGS).model
    sources = {benching.SPARSE: str(run), benching.DENSE: dense}
    try:
        sources[benching.UNIFORM] = str(pruning.uniform(run, watch))
    except PolicyError as error:
        watch.note(str(error))
    with TemporaryDirectory(prefix=".bench-", dir=run) as place:
        exports = {name: Path(place) / name for name in sources}
        for name, source in sources.items():
            exporting.export(source, forms, exports[name], Choices(), watch=watch)
        found = benching.bench(
            exports[benching.SPARSE], exports[benching.DENSE], prompts, new_tokens, threads, rounds,
            choices, watch, exports.get(benching.UNIFORM),
        )  # fmt: skip
    files.write(run / FILE, files.to_json(found.as_dict(), indent=2).encode())
    return found
