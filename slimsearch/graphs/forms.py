"""A model's graphs of free shapes, as ONNX Runtime and OpenVINO take them: three files a folder."""

from __future__ import annotations

from pathlib import Path

from slimsearch.graphs import anatomy, decoder, pictures
from slimsearch.graphs.linear import Linear
from slimsearch.model.vlm import VLM

EMBEDDING, DECODER, VISION = "embed_tokens", "decoder_model_merged", "vision_encoder"


def write(vlm: VLM, folder: Path, linear: Linear) -> None:
    """Writes a model's graphs into a new folder; a text-only model has no vision encoder."""
    parts = anatomy.read(vlm)
    folder.mkdir()
    write_senses(vlm, parts, folder)
    decoder.build(parts, linear=linear).write(folder / f"{DECODER}.onnx")


def write_senses(vlm: VLM, parts: anatomy.Decoder, folder: Path) -> None:
    """Writes what stands before a decoder: embeddings and, for a model that sees, its eyes."""
    decoder.embedding(parts).write(folder / f"{EMBEDDING}.onnx")
    if vlm.sees:
        pictures.build(vlm).write(folder / f"{VISION}.onnx")


def names(sees: bool) -> list[str]:
    """What a whole folder holds."""
    return [EMBEDDING, DECODER, *([VISION] if sees else [])]
