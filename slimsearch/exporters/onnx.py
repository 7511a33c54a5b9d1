"""ONNX in fp32, laid out and named as ONNX exports of transformers commonly are.

onnx/embed_tokens.onnx, onnx/decoder_model_merged.onnx and, for a model that sees,
onnx/vision_encoder.onnx with the projector in it.
"""

from pathlib import Path
from typing import Any

from slimsearch import conversation
from slimsearch.calibration import Pair
from slimsearch.contracts import Exporter
from slimsearch.graphs import anatomy, decoder, pictures
from slimsearch.graphs.linear import Linear, dense
from slimsearch.vlm import VLM

EMBEDDING, DECODER, VISION = "embed_tokens", "decoder_model_merged", "vision_encoder"


class Onnx(Exporter):
    def fill(self, vlm: VLM, folder: Path) -> dict[str, Any]:
        room = write_graphs(vlm, folder / "onnx")
        return {
            "about": "ONNX Runtime runs onnx/, in fp32: decoder_model_merged.onnx takes "
            "embeddings, a mask, positions and a cache of any length.",
            "dtype": "float32",
            "room": room,
        }


def write_graphs(vlm: VLM, folder: Path, linear: Linear = dense) -> int:
    """Writes a model's graphs; returns how many tokens the model holds."""
    parts = anatomy.read(vlm)
    folder.mkdir()
    decoder.embedding(parts).write(folder / f"{EMBEDDING}.onnx")
    decoder.build(parts, linear=linear).write(folder / f"{DECODER}.onnx")
    if vlm.projector is not None:
        pictures.build(vlm, _picture_shape(vlm)).write(folder / f"{VISION}.onnx")
    return parts.positions


def _picture_shape(vlm: VLM) -> tuple[int, int, int]:
    """What the processor makes of any picture, [channels, height, width]."""
    from PIL import Image

    speech = conversation.load(vlm.checkpoint, sees=True)
    blank = Pair("a blank picture", Image.new("RGB", (64, 64)), ())
    _, channels, height, width = conversation.pixels(speech, blank).shape
    return channels, height, width
