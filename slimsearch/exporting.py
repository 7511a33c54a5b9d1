"""Writes the champion of a run, or any model folder, in a form that something else runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slimsearch import checkpoint, history, loading, plugins
from slimsearch.errors import ModelError, RunError
from slimsearch.vlm import VLM


def export(source: str, form: str, folder: Path) -> Path:
    """Writes `source` as `form` into a folder that does not exist yet."""
    exporter = plugins.find("exporters", form)()
    found = checkpoint.find(str(model_of(Path(source)) or source))
    model = loading.load(found, "cpu", "auto")
    exporter.write(model, folder, facts_of(model))
    return folder


def model_of(source: Path) -> Path | None:
    """The champion's model folder where `source` is a run; None where it is none."""
    if not (source / "journal.jsonl").is_file():
        return None
    found = history.read(source)
    if found.end is None:
        raise RunError(
            f"{source} is not finished, so it has no champion yet. Go on with: "
            f"{history.resume_line(source)}"
        )
    found.check_written("model/")
    return source / "model"


def facts_of(model: VLM) -> dict[str, Any]:
    """What an earlier run recorded about this model, and its zeros as they are."""
    zeros = {m.name: int((model.linear(m.name).weight == 0).sum()) for m in model.matrices}
    return {
        "base": model.checkpoint.folder.name,
        **recorded(model.checkpoint.folder),
        "sparsity": sum(zeros.values()) / sum(matrix.size for matrix in model.matrices),
        "matrices": {matrix.name: zeros[matrix.name] / matrix.size for matrix in model.matrices},
    }


def recorded(folder: Path) -> dict[str, Any]:
    """What slimsearch wrote beside a model when it made it; nothing for any other model."""
    file = folder / "slimsearch.json"
    try:
        return json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{file} is damaged ({error}); remove it or restore it.") from None
