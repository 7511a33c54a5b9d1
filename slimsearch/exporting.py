"""Writes the champion of a run, or any model folder, in a form that something else runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slimsearch import checkpoint, plugins, vlm
from slimsearch.checkpoint import Checkpoint
from slimsearch.errors import RunError
from slimsearch.run import records_of


def export(source: str, form: str, folder: Path) -> Path:
    """Writes `source` as `form` into a folder that does not exist yet."""
    exporter = plugins.find("exporters", form)()
    found = checkpoint.find(str(_model_of(Path(source)) or source))
    exporter.write(vlm.load(found, "cpu", "auto"), folder, _facts(found))
    return folder


def _model_of(source: Path) -> Path | None:
    """The champion's model folder where `source` is a run; None where it is none."""
    if not (source / "journal.jsonl").is_file():
        return None
    if not any(record["kind"] == "end" for record in records_of(source)):
        raise RunError(
            f"{source} is not finished, so it has no champion yet. Go on with: slimsearch resume "
            f"{source}"
        )
    return source / "model"


def _facts(found: Checkpoint) -> dict[str, Any]:
    """What an earlier run recorded about this model, or nothing."""
    file = found.folder / "slimsearch.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}
