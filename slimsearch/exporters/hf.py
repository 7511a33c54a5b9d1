"""A model folder like the one it came from: same tensors, names and dtypes, zeros exact.

It loads with plain from_pretrained. No sparsity_config is written: engines refuse it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimsearch import files
from slimsearch.contracts import Exporter
from slimsearch.errors import RunError
from slimsearch.vlm import VLM


class HuggingFace(Exporter):
    def write(self, vlm: VLM, folder: Path, facts: Mapping[str, Any]) -> None:
        if folder.exists():
            raise RunError(f"{folder} exists already; choose another folder or remove it.")
        with files.new_folder(folder) as temporary:
            vlm.checkpoint.copy(temporary, _changed(vlm))
            describe(temporary, facts)


def describe(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes slimsearch.json and the model card, README.md."""
    (folder / "slimsearch.json").write_text(files.to_json(facts, indent=2), "utf-8")
    (folder / "README.md").write_text(_card(facts), "utf-8")


def _changed(vlm: VLM) -> dict[str, Tensor]:
    """Prunable matrices and the projector's weights, where they are not what the disk holds."""
    weights = {
        vlm.disk_name(vlm.matrix_parameter(matrix.name)): vlm.linear(matrix.name).weight
        for matrix in vlm.matrices
    }
    if vlm.projector is not None:
        for name, weight in vlm.projector.state_dict().items():
            weights[vlm.disk_name(f"{vlm.architecture.projector}.{name}")] = weight
    return {
        key: weights[key]
        for key, stored in vlm.checkpoint.read(weights)
        if not torch.equal(stored.to(weights[key].dtype), weights[key].cpu())
    }


def _card(facts: Mapping[str, Any]) -> str:
    """What was removed, and how it scored."""
    lines = [
        f"# {facts['base']}, written by slimsearch",
        "",
        f"{facts['sparsity']:.1%} of the weights in the decoder's attention and MLP matrices are "
        f"zero.",
    ]
    if facts.get("drift"):
        lines += ["", "The search was interrupted and gone on with under other conditions:", ""]
        lines += [f"- {difference}" for difference in facts["drift"]]
    for family, table in facts.get("policy", {}).items():
        lines += ["", f"| {family} | |", "|---|---|"]
        lines += [f"| {part} | {value:g} |" for part, value in table.items()]
    if facts.get("table"):
        lines += ["", "| model | sparsity | perplexity | accuracy | answer loss |"]
        lines += ["|---|---|---|---|---|"]
    for row in facts.get("table", ()):
        cells = [row["figures"].get(key) for key in ("perplexity", "accuracy", "answer_loss")]
        shown = " | ".join("-" if cell is None else f"{cell:.4g}" for cell in cells)
        lines.append(f"| {row['name']} | {row['sparsity']:.3f} | {shown} |")
    return "\n".join(lines) + "\n"
