"""ONNX, laid out and named as ONNX exports of transformers commonly are.

onnx/embed_tokens.onnx, onnx/decoder_model_merged.onnx and, for a model that sees,
onnx/vision_encoder.onnx with the projector in it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch.contracts import Exporter
from slimsearch.graphs import anatomy, forms, steps
from slimsearch.graphs.int8 import Int8
from slimsearch.graphs.linear import dense
from slimsearch.model.vlm import VLM
from slimsearch.routes.route import Route


@dataclass(frozen=True)
class Onnx(Exporter):
    int8: bool = False

    def fill(self, vlm: VLM, folder: Path) -> dict[str, Any]:
        forms.write(vlm, folder / "onnx", Int8() if self.int8 else dense)
        kind = "int8" if self.int8 else "fp32"
        return {
            "about": f"ONNX Runtime runs onnx/ ({kind}): decoder_model_merged.onnx takes "
            f"embeddings, a mask, positions and a cache of any length.",
            "int8": self.int8,
            "steps": steps.here(),
        }

    def unsaid(self, route: Route) -> str:
        return anatomy.unsaid(route)
