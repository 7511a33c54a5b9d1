"""An export folder: what stands in it, how it is made whole, how it is found again.

config.json, generation_config.json, tokenizer, processor, chat template: always, as they were
slimsearch.json, README.md       what was removed, the scores, and a record of each form
model*.safetensors               the form hf
native/ onnx/ openvino/ ...     other forms, each in the folder of its exporter's name
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch import card, files
from slimsearch.contracts import Exporter
from slimsearch.errors import ModelError, RunError
from slimsearch.model import checkpoint, loading
from slimsearch.model.checkpoint import BESIDE, RECORD, Checkpoint, record_of
from slimsearch.model.vlm import VLM
from slimsearch.native.form import DECODER, FORM, OTHERS, Held
from slimsearch.record import history, results
from slimsearch.surgery import thinning
from slimsearch.version import __version__

CARD = "README.md"


def write(
    vlm: VLM, folder: Path, facts: Mapping[str, Any], exporters: Mapping[str, Exporter]
) -> dict[str, Any]:
    """Writes a new folder that holds a model in each of these forms; returns its record.

    `facts` are what assembly.facts gives: base, sparsity, matrices and more.
    """
    if folder.exists():
        raise RunError(f"{folder} exists already; choose another folder or remove it.")
    with files.new_folder(folder) as temporary:
        vlm.checkpoint.copy_beside(temporary)
        forms = {
            name: _sealed(exporter.fill(vlm, temporary), temporary / name)
            for name, exporter in exporters.items()
        }
        record = {**facts, "exports": forms}
        if "hf" in exporters:
            record = thinning.told(vlm, record)
        return describe(temporary, record)


def describe(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Writes slimsearch.json and the model card, README.md; the record."""
    record = {**facts, BESIDE: checkpoint.names_beside(folder)}
    (folder / RECORD).write_text(files.to_json(record, indent=2), "utf-8")
    (folder / CARD).write_text(card.text(record), "utf-8")
    return record


def renew_card(folder: Path) -> None:
    """Writes the card of an export of ours again, with what evaluations of it have found."""
    if record := record_of(folder):
        found = results.all_in(folder / results.FOLDER)
        own = [one for one in found if Path(one["file"]).parent.name == results.FOLDER]
        files.write(folder / CARD, card.text(record, own).encode())


def champion(source: Path) -> Path | None:
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


def facts_of(vlm: VLM) -> dict[str, Any]:
    """What an earlier run recorded about this model, and its zeros as they are."""
    hashes = vlm.checkpoint.fingerprint()
    hashes.pop(RECORD, None)
    return {
        "slimsearch": __version__,
        "base": vlm.checkpoint.folder.name,
        "fingerprint": {"model": hashes},
        **vlm.facts,
        **record_of(vlm.checkpoint.folder),
        **zeros_of(vlm),
    }


def zeros_of(vlm: VLM) -> dict[str, Any]:
    """The share of zeros, in all and by matrix, as they are."""
    zeros = {m.name: int((vlm.linear(m.name).weight == 0).sum()) for m in vlm.matrices}
    return {
        "sparsity": sum(zeros.values()) / sum(matrix.size for matrix in vlm.matrices),
        "matrices": {matrix.name: zeros[matrix.name] / matrix.size for matrix in vlm.matrices},
    }


@dataclass(frozen=True)
class Artefact:
    """A folder that was found; `checkpoint.shards` is empty where the form hf is not in it."""

    checkpoint: Checkpoint
    record: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.checkpoint.folder

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures."""
        return loading.architecture_of(self.checkpoint).sees

    @property
    def room(self) -> int:
        """How many tokens the model reads at most."""
        text = loading.config_of(self.checkpoint).get_text_config()
        return text.max_position_embeddings

    @property
    def picture_token(self) -> int | None:
        """The id that holds a picture's place; None for a model that reads text only."""
        return loading.config_of(self.checkpoint).image_token_id if self.sees else None

    def holds(self, form: str) -> bool:
        return bool(self.checkpoint.shards) if form == "hf" else (self.folder / form).is_dir()

    def native(self) -> Held:
        """The form of our own engine; its files are there and lie in the folder."""
        for name in (DECODER, OTHERS):
            part(self.folder, FORM, name)
        return Held(self.checkpoint, self._seals(FORM))

    def check(self, form: str) -> None:
        """Refuses a form of which a file is not as it was written; older exports do not tell."""
        for name, sealed in self._seals(form).items():
            file = part(self.folder, form, name)
            try:
                unlike = files.unlike(file, sealed)
            except (KeyError, TypeError):
                unlike = f"cannot be checked: {self.folder / RECORD} is damaged"
            if unlike:
                raise ModelError(f"{file} {unlike}. Export it again with --to {form}.")

    def recorded(self, form: str) -> Mapping[str, Any]:
        """What the exporter of a form recorded."""
        forms = self.record.get("exports")
        found = forms.get(form) if isinstance(forms, dict) else None
        return found if isinstance(found, dict) else {}

    def _seals(self, form: str) -> Mapping[str, Any]:
        """What was recorded of a form's files, by name."""
        seals = self.recorded(form).get("seals")
        return seals if isinstance(seals, dict) else {}


def _sealed(told: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """What an exporter told of its form, and a seal of each file where the form has a folder."""
    if "seals" in told or not folder.is_dir():
        return told
    return {**told, "seals": files.seals(folder, sorted(folder.rglob("*")))}


def find(folder: Path) -> Artefact:
    """An export, a run's model or any other model folder."""
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}. slimsearch export writes one.")
    return Artefact(checkpoint.beside(folder), record_of(folder))


def part(folder: Path, form: str, name: str) -> Path:
    """A file of a form, or that it is missing."""
    file = folder / form / name
    if not file.is_file():
        raise ModelError(
            f"{file} is missing, so {folder} is no whole export. Write it again with: slimsearch "
            f"export MODEL --to {form} --out FOLDER."
        )
    if not checkpoint.inside(file, folder):
        raise ModelError(f"{file} is a link out of {folder}. Refused; copy the file in.")
    return file
